"""What an attempt at a sweep does with its place: slots that train segments of trials, as a controller says."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from epochal.agent.program import SweepTell, cold_starts
from epochal.agent.retry_policy import Ending
from epochal.agent.sweep_conductor import Conductor, Sweep
from epochal.agent.sweep_slots import SlotPool
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
    """Slots over the whole place, which grows and shrinks as the ledger says, train the trials of a ``sweep``; see
    ``TrainProgram`` for the rest."""

    sweep: Sweep
    attempt: int
    limits: Mapping[Phase, float] = field(default_factory=lambda: DEFAULT_LIMITS)

    def run(self, place: Place, tell: SweepTell, stop: Stop) -> Ending:
        """Until nothing is left to try, too many trials have failed, or it is asked to stop."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        for cold in cold_starts(place):
            tell.notice(cold)
        conductor = Conductor(self.sweep, place, tell, stop)
        conductor.begin()
        with self.sweep.journal, Hub(place.connection.host) as hub:
            listener = _Listener(tell, conductor, place)
            data_folder = self.sweep.payload.data_folder
            attempt = Attempt(place, self.sweep.folder, self.attempt, data_folder, stop, hub, listener, self.limits)
            slots = SlotPool(place, self.sweep.orders, partial(Slot, attempt), listener.resized)
            with stop.heard_by(conductor.wake, conductor.wake):
                conductor.conduct(slots)
        return conductor.ending()


@dataclass(frozen=True)
class _Listener:
    """What a slot's workers tell (``slot.Listener``)."""

    tell: SweepTell
    conductor: Conductor
    place: Place
    workers: dict[int, Started] = field(default_factory=dict)
    """The newest that have started, by number."""

    def started(self, workers: Mapping[int, Started]) -> None:
        self.workers.update(workers)
        self._tell()

    def resized(self, numbers: Collection[int]) -> None:
        """Only the workers with these numbers have a seat now."""
        for number in set(self.workers).difference(numbers):
            del self.workers[number]
        self._tell()

    def _tell(self) -> None:
        """Tell how many workers the sweep has room for: their processes start when they are needed."""
        if self.workers:
            told = [replace(worker, rank=number) for number, worker in sorted(dict(self.workers).items())]
            self.tell.started(self.place.world_size, told)

    def log(self, rank: int, text: str, begun: str) -> None:
        self.tell.log(rank, text, begun)

    def report(self, trial: int | None, report: Report) -> None:
        self.conductor.report(trial, report)
