"""What the workers of a gang tell while they run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from epochal.engine.failure import Failed, FailureKind
from epochal.ledger import documents
from epochal.redaction import Redactor
from epochal.training.control import Noted, Phase, Prepared, Report, SetAside

__all__ = ["Done", "Event", "Failed", "FailureKind", "Heartbeat", "Log", "Reported", "Started", "redacted"]


@dataclass(frozen=True)
class Started:
    """A worker's process is there and about to call the target.

    ``created`` is when the process started (see ``process.created``): with ``pid`` it identifies the process, whatever
    later gets the same number. ``store_address`` is the host and port of rank 0's store, ``relay`` the id and start of
    the process that has its last words.
    """

    rank: int
    pid: int
    created: float
    node_id: str
    host: str
    device: str
    store_address: tuple[str, int] | None = None
    relay: tuple[int, float] | None = None

    @property
    def processes(self) -> list[tuple[int, float]]:
        """Id and start of the worker's process, and of that which has its last words."""
        return [(self.pid, self.created), *([] if self.relay is None else [self.relay])]


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
    """What the training itself tells: progress, a checkpoint, what it built; in a sweep, of which ``trial``."""

    rank: int
    report: Report
    trial: int | None = None


@dataclass(frozen=True)
class Log:
    """What a worker printed: whole lines, each with its line end; ``begun`` is what there is of one after them."""

    rank: int
    text: str
    begun: str = ""


@dataclass(frozen=True)
class Done:
    """A worker's target returned ``result``."""

    rank: int
    result: Any


Event = Started | Heartbeat | Reported | Log | Done | Failed


def redacted(event: Event, redactor: Redactor) -> Event:
    """The event without secrets in what others have put into words; of a long traceback the beginning and the end."""
    match event:
        case Failed():
            # In this order: half of a value is not known for one.
            trace = documents.text(redactor.text(event.traceback))
            return replace(event, message=redactor.text(event.message), traceback=trace)
        case Reported(report=Prepared() as report):
            return replace(event, report=replace(report, data=report.data.worded(redactor.text)))
        case Reported(report=SetAside() as report):
            return replace(event, report=replace(report, why=redactor.text(report.why)))
        case Reported(report=Noted() as report):
            return replace(event, report=Noted(redactor.text(report.note)))
        case _:
            return event
