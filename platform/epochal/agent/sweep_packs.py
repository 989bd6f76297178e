"""Which segments of trials are trained together in one worker (``training.pack``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from epochal.spec.job import JobSpec
from epochal.spec.tree import placed
from epochal.sweeps.trials import Run
from epochal.training.packing import key_of, packable

MOST = 16
"""Trials of a pack where the spec leaves it to us; fewer in a sweep of fewer than eight times as many, whose searcher
and trial scheduler would otherwise hear of too many at once. One of fewer than 16 trials is not packed at all: its
values are the same to the last bit whatever runs beside a trial."""

MOST_PARAMETERS = 300_000
"""Of a model that is packed then. The cores of a CPU are busy with a larger one alone."""


@dataclass(frozen=True)
class _Waiting:
    run: Run
    key: str
    """Those with the same may train together; a trial's own where it trains alone."""


class Packs:
    """Segments that the controller has given out, until slots take them."""

    def __init__(self, spec: JobSpec, stored: dict[str, object], slots: int) -> None:
        assert spec.sweep is not None
        self._stored = stored
        self.slots = slots
        self._pack = spec.sweep.pack
        self._trials = spec.sweep.trials
        self._parameters: int | None = None
        self._waiting: list[_Waiting] = []
        self._alone: set[str] = set()
        """Keys and trials that do not train in packs."""

    def built(self, parameters: int) -> None:
        """The first trial's model has so many."""
        self._parameters = parameters

    def unfit(self, run: Run) -> None:
        """Trials like this one cannot be packed."""
        self._alone.add(self._key(run))

    def apart(self, trial: int) -> None:
        """What its pack failed of, no member is blamed for: each is trained alone."""
        self._alone.add(str(trial))

    def take(self, ask: Callable[[], Run | None], left: int) -> list[Run]:
        """The segments that a slot trains next, of those that wait and those that the controller gives when it is
        asked; ``left`` is how many trials have not begun. While it is asked another slot may take some, too."""
        most = self._most(left)
        found, self._waiting = self._waiting, []
        while len(found) < most and (run := ask()) is not None:
            found.append(_Waiting(run, self._key(run)))
        if not found:
            return []
        key = found[0].key
        taken = [one for one in found if one.key == key][: most if key not in self._alone else 1]
        self._waiting += [one for one in found if one not in taken]
        return [one.run for one in taken]

    def _most(self, left: int) -> int:
        if self._pack == "off":
            return 1
        if isinstance(self._pack, int):
            most = self._pack
        elif self._parameters is None or self._parameters > MOST_PARAMETERS:
            return 1
        else:
            most = min(MOST, self._trials // 8)
        # As many to each slot, so that all are done at the same time.
        share = -(-(left + len(self._waiting)) // self.slots) if left else most
        return max(1, min(most, share))

    def _key(self, run: Run) -> str:
        if self._pack == "off" or str(run.trial) in self._alone:
            return str(run.trial)
        spec = JobSpec.from_stored(placed(self._stored, run.point))
        if packable(spec) is not None:
            return str(run.trial)
        return f"{run.until} {key_of(spec)}"
