"""Unit tests start no process: they are quick, and run first. Whoever starts one belongs in ``tests/integration``."""

from __future__ import annotations

import multiprocessing.process
import os
import platform
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from epochal.catalog.lean_torchmetrics import lean_torchmetrics
from unsynced import no_waiting_for_the_disk  # noqa: F401 - a fixture


def pytest_pycollect_makemodule() -> None:
    """Before the first test is imported, and not in the process that only hands tests out."""
    platform.processor()  # runs `uname`, once: libraries ask for it while they are imported
    with lean_torchmetrics():  # as the platform does; the first test to import it would bring matplotlib
        import torchmetrics  # noqa: F401


@pytest.fixture(scope="module", autouse=True)
def _no_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    """The libraries' own (``ldconfig`` of ctypes, say) start while they are imported, before any test."""

    def refuse(*arguments: Any, **named: Any) -> None:
        raise AssertionError(f"{request.node.nodeid} starts a process: it belongs in tests/integration")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", refuse)
        patch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
        patch.setattr(os, "fork", refuse)
        yield
