"""What a trial scheduler is told of the trials of a sweep, and what it says about them.

The controller tells it of each segment that begins or is trained, and of each trial that is over, in the order of its
inputs, and asks it which trial goes on. It keeps what it needs to answer without going through all trials, and answers
the same to the same: what it draws depends on the seed of the search, the trial and the length alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from epochal.spec.job import JobSpec
from epochal.sweeps.entries import Entry
from epochal.sweeps.trials import Point, Trial


@dataclass(frozen=True)
class Pause:
    """It waits to be promoted."""


@dataclass(frozen=True)
class GoOn:
    """It trains on to that length, as soon as there is room."""

    until: float


@dataclass(frozen=True)
class Stop:
    """It never trains again."""

    why: str


@dataclass(frozen=True)
class TakeOver:
    """It goes on to ``until`` from the state that ``source`` saved at that length, with another point."""

    source: int
    length: float
    point: Point
    until: float


Verdict = Pause | GoOn | Stop | TakeOver


@dataclass(frozen=True)
class Next:
    """The trial that goes on, and how far."""

    trial: int
    until: float


@dataclass(frozen=True)
class Rung:
    """A length, and about how many trials train at least as far as that."""

    length: float
    trials: int


class TrialScheduler(Protocol):
    """Which trials go on, stop, or take over another's state. One serves one sweep."""

    def rungs(self, trials: int) -> tuple[Rung, ...]:
        """The lengths at which trials are compared, and the full one, if so many trials are tried."""
        ...

    def first(self) -> float:
        """Where the first segment of the next new trial leads."""
        ...

    def started(self, trial: Trial) -> None:
        """A segment to ``trial.until`` begins: of a new trial, or of the one that ``next`` named."""
        ...

    def reached(self, trial: Trial) -> Verdict:
        """A trial has trained to ``trial.until``, its curve says with what result, and it may train further."""
        ...

    def ended(self, trial: Trial) -> None:
        """A trial is COMPLETED (its curve has the last result), FAILED, or STOPPED by its user."""
        ...

    def next(self, holds: int | None, more: bool) -> Next | None:
        """Which trial goes on, ``holds`` where that is as good as another. ``more``: a new trial could begin instead,
        and does where the answer is None. Only asks: what comes of it is told by ``started``."""
        ...


TrialSchedulerEntry = Entry[Callable[[Any, JobSpec], TrialScheduler]]
