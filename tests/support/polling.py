"""Waiting in tests for what another thread or process is about to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil

PATIENCE_SECONDS = 240.0
"""Long, and free where all is well: on a machine with other suites beside this one everything takes ten times as long.
A test gives another number only where the time itself is what it promises."""


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Ask again and again until ``condition`` gives something true, and return it.

    Raises:
        AssertionError: that took more than ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while True:
        begun = time.monotonic()
        if found := condition():
            return found
        looked = time.monotonic()
        assert looked < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(pause_after(looked - begun))


def pause_after(seconds: float) -> float:
    """Until the next look, in seconds, after one that took that long: looks take the CPU from what is waited for."""
    return min(max(0.01, 3 * seconds), 0.2)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def niceness_of_children(process: psutil.Process) -> dict[str, int]:
    """By name; of those that do not end at this moment, as one that nobody needs may."""
    found = {}
    for child in process.children():
        with suppress(psutil.NoSuchProcess):
            found[child.name()] = child.nice()
    return found
