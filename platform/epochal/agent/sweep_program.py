"""What an attempt at a sweep does with its place: slots that train segments of trials, as a controller says."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from epochal.agent.retry_policy import Ending
from epochal.agent.sweep_conductor import Conductor, Sweep, SweepTell
from epochal.engine.events import Started
from epochal.engine.gang import Stop
from epochal.engine.hub import Hub
from epochal.engine.place import Place
from epochal.engine.slot import Attempt, Slot
from epochal.engine.watchdog import DEFAULT_LIMITS
from epochal.training.control import Phase, Report

_SWITCH_SECONDS = 0.0005
"""From one segment to the next a slot's thread gives the interpreter up several times (a message, a line of a file),
and waits for it as long as this each time while MLflow's thread computes: with Python's own 5 ms, the worker waits
longer than a tiny trial trains."""


@dataclass(frozen=True)
class SweepProgram:
    """Slots over the whole place train the trials of a ``sweep``; see ``TrainProgram`` for the rest."""

    sweep: Sweep
    attempt: int
    limits: Mapping[Phase, float] = field(default_factory=lambda: DEFAULT_LIMITS)

    def run(self, place: Place, tell: SweepTell, stop: Stop) -> Ending:
        """Until nothing is left to try, too many trials have failed, or it is asked to stop."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        conductor = Conductor(self.sweep, place, tell, stop)
        conductor.begin()
        with self.sweep.journal, Hub(place.connection.host) as hub:
            listener = _Listener(tell, conductor)
            data_folder = self.sweep.payload.data_folder
            attempt = Attempt(place, self.sweep.folder, self.attempt, data_folder, stop, hub, listener, self.limits)
            with stop.heard_by(conductor.wake, conductor.wake):
                conductor.conduct([Slot(attempt, n, seats) for n, seats in enumerate(self._groups(place))])
        return conductor.ending()

    def _groups(self, place: Place) -> Iterator[list[Any]]:
        """The seats of each slot: a trial's workers sit as close together as they can."""
        seats, workers = place.seats(), self.sweep.spec.resources.max_workers
        for first in range(0, len(seats) - workers + 1, workers):
            yield seats[first : first + workers]


@dataclass(frozen=True)
class _Listener:
    """What a slot's workers tell (``slot.Listener``)."""

    tell: SweepTell
    conductor: Conductor
    started_workers: dict[int, Started] = field(default_factory=dict)

    def started(self, workers: Mapping[int, Started]) -> None:
        self.started_workers.update(workers)
        ranks = [self.started_workers[number] for number in sorted(self.started_workers)]
        self.tell.started(len(ranks), ranks)

    def log(self, rank: int, text: str, begun: str) -> None:
        self.tell.log(rank, text, begun)

    def report(self, trial: int | None, report: Report) -> None:
        self.conductor.report(trial, report)
