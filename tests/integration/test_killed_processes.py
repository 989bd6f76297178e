"""What the kernel keeps of a process that was killed, and what it lets go of."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from epochal.files import is_locked, locked
from epochal.local.service_state import supervisor_lock, supervisor_pid
from epochal.tracking.metric_spool import read_lines, segments


def test_the_next_has_the_lock_as_soon_as_its_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import pathlib, sys; from epochal.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), 0.0) as mine: print(mine, flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        threading.Timer(0.2, holder.kill).start()
        with locked(path, 30.0) as mine:
            assert mine
            assert holder.wait() != 0


def test_flushed_lines_survive_sigkill(tmp_path: Path) -> None:
    script = (
        "import os, sys, signal, pathlib; from epochal.tracking.metric_spool import MetricSpool;"
        "w = MetricSpool(pathlib.Path(sys.argv[1]), 'a');"
        "[w.log(i, {'loss': i}) for i in range(100)]; w.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    points = [point for path in segments(tmp_path) for line in read_lines(path) for point in line.points]
    assert [(point.step, point.value) for point in points] == [(step, float(step)) for step in range(100)]


def test_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = supervisor_lock(tmp_path)
    code = f"from epochal.local.service_state import *\nwith hold(Path({str(path)!r}), 1, ''): print(1); input()"
    with subprocess.Popen(
        [sys.executable, "-uc", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert is_locked(path)
        assert supervisor_pid(tmp_path) == holder.pid
        holder.kill()
        holder.wait()
    assert not is_locked(path)
