"""The words of a sweep: its trials, what its controller is told, and what it commands.

A trial trains in *segments*: to a length at which its objective is measured and its state saved. What comes next is the
controller's to say, on an answer to ``Asked``. Lengths are epochs or steps, as ``sweep.trial_scheduler.min`` is.

The controller is a fold over inputs, in the order in which they were written down: the same inputs give the same
trials, so that whoever takes over a sweep replays them. There is no clock here, and no Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import isnan
from typing import Any

Point = Mapping[str, Any]
"""Dotted path of a field of the job spec to its value, as JSON has it."""
SEED = "train.seed"
"""In what a point and its repeats differ."""


class TrialState(StrEnum):
    """How a trial stands."""

    WAITING = "WAITING"
    """It has a segment to train, and no worker yet."""
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    """Its state is saved; it may be promoted."""
    COMPLETED = "COMPLETED"
    """It trained to its full length, or until early stopping had enough."""
    STOPPED = "STOPPED"
    """The trial scheduler, or the user, gave its budget to others."""
    FAILED = "FAILED"

    @property
    def is_over(self) -> bool:
        """Whether it never trains again, unless the sweep is extended."""
        return self in (TrialState.COMPLETED, TrialState.STOPPED, TrialState.FAILED)


@dataclass(frozen=True)
class Measured:
    """The objective at a length that was trained. NaN is a value: it is worse than every number."""

    length: float
    value: float


@dataclass(frozen=True)
class Trial:
    """One point of a sweep. ``number`` counts from 0 in the order in which points were chosen.

    ``until`` is the length that its current or next segment leads to; ``curve`` has what was measured, by length.
    ``why`` it ended is a reason of the ledger's where it FAILED or its user ended it; ``message`` says it in words.
    ``copied``: whose state it took over last (PBT).
    """

    number: int
    point: Point
    state: TrialState = TrialState.WAITING
    until: float = 0.0
    curve: tuple[Measured, ...] = ()
    why: str = ""
    message: str = ""
    copied: int | None = None

    @property
    def length(self) -> float:
        """As far as it was measured."""
        return self.curve[-1].length if self.curve else 0.0

    @property
    def is_ranked(self) -> bool:
        """Whether it counts among the best: it did not fail, and its newest value is a number."""
        return bool(self.curve) and self.state is not TrialState.FAILED and not isnan(self.curve[-1].value)


# What the controller is told.


@dataclass(frozen=True)
class Asked:
    """There is room for one trial. ``holds`` is the one that its workers have trained last, whose saved state they are
    nearest to. The answer is one ``Run``, or none where there is nothing to do until something is told; or
    the end of the sweep, where nothing trains and the searcher turns out to have no more points.

    ``trial`` and ``point`` are those of the ``Run`` it was answered with, where it is told again (``inputs.to_json``
    writes them down): a new trial gets that point then, and the searcher is not asked, which might round otherwise on
    another machine; or they are what the searcher was asked beforehand (``Controller.next_suggestion``). One without an
    answer has changed nothing, and need not be told again.
    """

    holds: int | None = None
    trial: int | None = None
    point: Point | None = None


@dataclass(frozen=True)
class Reached:
    """A segment is trained, and its state saved. ``done``: it has ended before its full length (early stopping).

    ``metrics`` are those of its last validation; the objective's is ``value``. ``step`` is the optimizer step there.
    """

    trial: int
    length: float
    value: float
    done: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    step: int = 0


@dataclass(frozen=True)
class Failed:
    """A segment failed for good. ``reason`` is one of the ledger's."""

    trial: int
    reason: str
    message: str


@dataclass(frozen=True)
class Interrupted:
    """Trials whose workers were lost, or made room for other jobs: their segments are trained again, from what is
    saved. ``trials`` is None for all that run: an attempt has ended, and another begins."""

    trials: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Extended:
    """The user wants so many trials more, also after the sweep has finished."""

    trials: int


@dataclass(frozen=True)
class Added:
    """The user has points of their own, which are tried next, beyond ``sweep.trials``."""

    points: tuple[Point, ...]


@dataclass(frozen=True)
class Repeated:
    """The user wants a trial's point tried again, so many times, each with another ``train.seed``."""

    trial: int
    times: int


@dataclass(frozen=True)
class Cancelled:
    """The user wants one trial ended."""

    trial: int


Input = Asked | Reached | Failed | Interrupted | Extended | Added | Repeated | Cancelled


# What the controller commands.


@dataclass(frozen=True)
class Run:
    """Train this trial to that length, from its newest saved state, or from the beginning where it has none."""

    trial: int
    point: Point
    until: float


@dataclass(frozen=True)
class Copy:
    """Give the trial the state that ``source`` saved at that length, in place of its own. To be done at once."""

    trial: int
    source: int
    length: float


@dataclass(frozen=True)
class End:
    """The trial is over, as ``state`` says; where it is running, it is to stop."""

    trial: int
    state: TrialState
    why: str = ""


@dataclass(frozen=True)
class Finish:
    """Nothing is left to try. ``failed`` says why the sweep has failed, ``reason`` is that of the trial that was one
    too many; both are empty where it has not."""

    failed: str = ""
    reason: str = ""


Command = Run | Copy | End | Finish
