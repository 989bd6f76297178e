"""Unit tests start no process: they are quick, and run first. Whoever starts one belongs in ``tests/integration``."""

from __future__ import annotations

import multiprocessing.process
import os
import platform
import subprocess
from typing import Any

import pytest

from epochal.catalog.lean_torchmetrics import lean_torchmetrics

platform.processor()  # runs `uname`, once: libraries ask for it while they are imported
with lean_torchmetrics():  # as the platform does; the first test to import it would bring matplotlib
    import torchmetrics  # noqa: F401


@pytest.fixture(autouse=True)
def _no_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries' own (``ldconfig`` of ctypes, say) start while they are imported, before any test."""

    def refuse(*arguments: Any, **named: Any) -> None:
        raise AssertionError(f"{request.node.nodeid} starts a process: it belongs in tests/integration")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    monkeypatch.setattr(os, "fork", refuse)
