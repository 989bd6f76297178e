"""What an attempt does with its place: the half of a job's work that knows nothing of leases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from epochal.agent.settlement import Ending
from epochal.engine.events import Done, Failed, Log, Reported, Started
from epochal.engine.gang import Gang, Stop
from epochal.engine.payload import TRAIN, TrainPayload
from epochal.engine.place import Place
from epochal.ledger.states import Reason
from epochal.training.control import Report


class Tell(Protocol):
    """Where a program's news go. Returns quickly."""

    def started(self, world_size: int, ranks: Sequence[Started]) -> None:
        """All of a gang's workers have started."""

    def log(self, rank: int, text: str) -> None:
        """What a worker printed."""

    def report(self, report: Report) -> None:
        """What the training itself tells."""

    def finished(self, tags: Mapping[str, str]) -> None:
        """It has ended as it should: what the run is tagged with."""


class Program(Protocol):
    """Works in a place until it is done, it has failed, or it is asked to stop."""

    def run(self, place: Place, tell: Tell, stop: Stop) -> Ending: ...


@dataclass(frozen=True)
class TrainProgram:
    """One gang over the whole place trains one model. ``attempt`` is the lease's epoch."""

    payload: TrainPayload
    folder: Path
    attempt: int

    def run(self, place: Place, tell: Tell, stop: Stop) -> Ending:
        """Follow the gang until every worker is done, the first has failed, or it is stopped before it trains."""
        results: dict[int, Mapping[str, Any]] = {}
        started: dict[int, Started] = {}
        gang = Gang(place, stop)
        with closing(gang.run(TRAIN, self.payload, self.folder, self.attempt)) as events:
            for event in events:
                if isinstance(event, Failed):
                    return Ending(Reason(event.kind), f"rank {event.rank}: {event.message}", event.traceback)
                if isinstance(event, Done):
                    results[event.rank] = event.result
                elif isinstance(event, Started):
                    started[event.rank] = event
                    if len(started) == gang.world_size:
                        tell.started(gang.world_size, [started[rank] for rank in sorted(started)])
                elif isinstance(event, Log):
                    tell.log(event.rank, event.text)
                elif isinstance(event, Reported):
                    tell.report(event.report)
        if not results:
            return Ending(None)
        tell.finished(results[0]["tags"])
        return Ending(None if results[0]["state"] == "stopped" else Reason.COMPLETED, result=results[0])
