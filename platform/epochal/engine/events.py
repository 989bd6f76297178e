"""What the workers of a gang tell while they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from epochal.engine.failure import Failed, FailureKind
from epochal.training.control import Phase, Report

__all__ = ["Done", "Event", "Failed", "FailureKind", "Heartbeat", "Log", "Reported", "Started"]


@dataclass(frozen=True)
class Started:
    """A worker's process is there and about to call the target.

    ``created`` is when the process started (see ``process.created``): with ``pid`` it identifies the process, whatever
    later gets the same number. ``store_address`` is the host and port of rank 0's store.
    """

    rank: int
    pid: int
    created: float
    node_id: str
    host: str
    device: str
    store_address: tuple[str, int] | None = None


@dataclass(frozen=True)
class Heartbeat:
    """The process is alive.

    ``ticks`` and ``stages`` count what the training, and the saving beside it, have got done so far: the same on every
    worker at the same point. ``growth`` counts looks at which files had grown. ``stepped``: a step was done in this
    attempt.
    """

    rank: int
    phase: Phase
    step: int
    ticks: int
    stages: int = 0
    growth: int = 0
    stepped: bool = True

    @property
    def moves(self) -> int:
        """Every sign of progress."""
        return self.ticks + self.stages + self.growth


@dataclass(frozen=True)
class Reported:
    """What the training itself tells: progress, a checkpoint, what it built."""

    rank: int
    report: Report


@dataclass(frozen=True)
class Log:
    """What a worker printed: whole lines, each with its line end."""

    rank: int
    text: str


@dataclass(frozen=True)
class Done:
    """A worker's target returned ``result``."""

    rank: int
    result: Any


Event = Started | Heartbeat | Reported | Log | Done | Failed
