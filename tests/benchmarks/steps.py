"""What ``instrument/sitecustomize.py`` noted: the optimizer steps of every process of one contender."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")

INSTRUMENT = Path(__file__).parent / "instrument"


@dataclass(frozen=True)
class Step:
    """The optimizer's own count, which a checkpoint restores, and when the step was done (Unix seconds)."""

    number: int
    at: float


@dataclass(frozen=True)
class Worker:
    """One process that trained."""

    pid: int
    rank: int
    steps: tuple[Step, ...]


def read(folder: Path) -> list[Worker]:
    """Every process that took a step; a half-written last line is left out."""
    return [worker for path in folder.iterdir() if (worker := _read_worker(path))]


def _read_worker(path: Path) -> Worker | None:
    lines = path.read_text().split("\n")[:-1]
    if len(lines) < 2:
        return None
    steps = tuple(Step(int(number), float(at)) for number, at in (line.split() for line in lines[1:]))
    return Worker(int(path.name), int(lines[0].split()[1]), steps)


def first_step_after(folder: Path, moment: float) -> Step | None:
    """The earliest step after ``moment``, of any process."""
    later = [step for worker in read(folder) for step in worker.steps if step.at > moment]
    return min(later, key=lambda step: step.at, default=None)


def running(folder: Path, rank: int) -> Worker | None:
    """The process of ``rank`` that stepped last."""
    workers = [worker for worker in read(folder) if worker.rank == rank]
    return max(workers, key=lambda worker: worker.steps[-1].at, default=None)


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
        time.sleep(0.02)
    return found
