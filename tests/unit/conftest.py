"""Unit tests start no process: they are quick, and run first. Whoever starts one belongs in ``tests/integration``."""

from __future__ import annotations

import multiprocessing.process
import os
import platform
import subprocess
from typing import Any

import pytest

platform.processor()  # runs `uname`, once: libraries ask for it while they are imported


@pytest.fixture(autouse=True)
def _no_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries' own (``ldconfig`` of ctypes, say) start while they are imported, before any test."""

    def refuse(*arguments: Any, **named: Any) -> None:
        raise AssertionError(f"{request.node.nodeid} starts a process: it belongs in tests/integration")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    monkeypatch.setattr(os, "fork", refuse)
