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


@pytest.mark.parametrize("crashed", [False, True])
def test_what_ends_a_worker_waits_for_its_last_words(crashed: bool) -> None:
    """As the task does that ends a worker on another node than the agent's."""
    with subprocess.Popen(["sleep", "600"]) as worker, subprocess.Popen(["sleep", "0.3"]) as output:
        both = [(child.pid, process.created(psutil.Process(child.pid))) for child in (worker, output)]
        if crashed:
            worker.kill()
        process.end(both, 10.0)
        assert not any(process.is_alive(*one) for one in both)


def test_a_process_that_does_not_end_is_not_waited_for_without_end() -> None:
    with subprocess.Popen(["sleep", "0"]) as worker, subprocess.Popen(["sleep", "600"]) as output:
        both = [(child.pid, process.created(psutil.Process(child.pid))) for child in (worker, output)]
        process.end(both, 0.1)
        assert process.is_alive(*both[1])
        output.kill()
