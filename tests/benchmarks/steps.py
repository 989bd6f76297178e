"""What ``instrument/sitecustomize.py`` noted: the optimizer steps of every process of one contender."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")

INSTRUMENT = Path(__file__).parent / "instrument"
_POLL_SECONDS = 0.02
_TAIL_BYTES = 200
"""A few lines."""


@dataclass(frozen=True)
class Step:
    """The optimizer's own count, which a checkpoint restores, and when the step was done (Unix seconds)."""

    number: int
    at: float


@dataclass(frozen=True)
class Worker:
    """One process that trained, and its newest step: cheap to look at while it runs on the cores that are measured."""

    pid: int
    rank: int
    newest: Step
    path: Path

    def steps(self) -> list[Step]:
        return [_step(line) for line in self.path.read_text().split("\n")[1:-1]]


def workers(folder: Path) -> list[Worker]:
    """Every process that took a step."""
    return [worker for path in folder.iterdir() if (worker := _worker(path))]


def _worker(path: Path) -> Worker | None:
    with path.open("rb") as file:
        head = file.readline().decode()
        size = file.seek(0, os.SEEK_END)
        file.seek(max(len(head), size - _TAIL_BYTES))
        lines = file.read().decode().split("\n")[:-1]  # what follows the last newline is still being written
    if not lines:
        return None
    return Worker(int(path.name), int(head.split()[1]), _step(lines[-1]), path)


def _step(line: str) -> Step:
    number, at = line.split()
    return Step(int(number), float(at))


def first_step_after(folder: Path, moment: float) -> Step | None:
    """The earliest step after ``moment``, of any process."""
    later = [worker for worker in workers(folder) if worker.newest.at > moment]
    found = [step for worker in later for step in worker.steps() if step.at > moment]
    return min(found, key=lambda step: step.at, default=None)


def running(folder: Path, rank: int) -> Worker | None:
    """The process of ``rank`` that stepped last."""
    of_rank = [worker for worker in workers(folder) if worker.rank == rank]
    return max(of_rank, key=lambda worker: worker.newest.at, default=None)


def wait_for(what: str, find: Callable[[], Found | None], alive: Callable[[], bool], seconds: float = 180) -> Found:
    """Poll until ``find`` finds.

    Raises:
        RuntimeError: it did not in time, or ``alive`` said that what it waits for has ended.
    """
    deadline = time.monotonic() + seconds
    while (found := find()) is None:
        if not alive():
            if (found := find()) is not None:
                break
            raise RuntimeError(f"ended without {what}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"no {what} within {seconds:g} s")
        time.sleep(_POLL_SECONDS)
    return found
