"""Processes are told apart, and ended, by what identifies them."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from epochal.engine import process


def test_a_clock_that_is_set_makes_no_process_another(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        started = process.created(psutil.Process(child.pid))
        create_time, boot_time = psutil.Process.create_time, psutil.boot_time
        monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 3600)
        monkeypatch.setattr(psutil, "boot_time", lambda: boot_time() + 3600)
        assert process.is_alive(child.pid, started)
        assert not process.kill_tree(child.pid, started - 1)
        assert process.kill_tree(child.pid, started)
        child.wait(10)
        assert not process.is_alive(child.pid, started)
    finally:
        child.kill()
        child.wait()
