"""Orphaned processes, whose supervisor was killed: found by their mark, waited for, ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from epochal.local.service_state import MARK

QUIET_SECONDS = 3.0
"""What is on its way out gets this long before anything is said."""

_KILL_SECONDS = 5.0
_RAYS_WATCHER = "aftermath.py"


def find_orphans(folder: Path) -> list[psutil.Process]:
    """Every living process that the services of ``folder`` have started, but this one and those above it."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in _marked(str(folder)) if process.pid not in own]


def end_orphans(folder: Path, patience: float, tell: Callable[[str], None]) -> int:
    """End them all; how many were still there when it came to that.

    To be called while no supervisor runs. The kernel has told the services to end when it died, and an agent may be
    saving its jobs: services, and the watchers that clean up after a private Ray, get ``patience`` seconds. What is
    not one of these has lost the one it belonged to.
    """
    _, busy = psutil.wait_procs(_leaders(find_orphans(folder)), timeout=QUIET_SECONDS)
    if busy and patience:
        tell(f"waiting for orphaned processes: {_names(busy)}")
        psutil.wait_procs(busy, timeout=patience)
    left = find_orphans(folder)
    if left:
        tell(f"ending orphaned processes: {_names(left)}")
    # The services first: then the watchers clean up after their Rays by themselves.
    _kill([process for process in _leaders(left) if _RAYS_WATCHER not in " ".join(_command(process))])
    _kill(find_orphans(folder))
    return len(left)


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=_KILL_SECONDS)


def _marked(folder: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == folder and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def _leaders(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that lead a session of their own: services, and watchers of a private Ray."""
    return [process for process in processes if _session(process) == process.pid]


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _names(processes: list[psutil.Process]) -> str:
    return ", ".join(f"pid {process.pid} ({' '.join(_command(process)[-4:])[:60]})" for process in processes)
