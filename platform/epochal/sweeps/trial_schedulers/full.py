"""Every trial trains to its full length, in one segment."""

from __future__ import annotations

from epochal.spec.job import JobSpec
from epochal.sweeps.entries import Params
from epochal.sweeps.ranking import full_length
from epochal.sweeps.trial_scheduler import Next, Pause, Rung, TrialSchedulerEntry, Verdict
from epochal.sweeps.trials import Trial


class NoneParams(Params):
    """None."""


class Full:
    """Nothing is ended early, nothing waits."""

    def __init__(self, params: NoneParams, spec: JobSpec) -> None:
        self._full = full_length(spec)

    def rungs(self, trials: int) -> tuple[Rung, ...]:
        return (Rung(self._full, trials),)

    def first(self) -> float:
        return self._full

    def started(self, trial: Trial) -> None:
        pass

    def reached(self, trial: Trial) -> Verdict:
        return Pause()

    def ended(self, trial: Trial) -> None:
        pass

    def next(self, holds: int | None, more: bool) -> Next | None:
        return None


ENTRY = TrialSchedulerEntry(
    summary="Every trial trains to its full length",
    source="Plain search, without early stopping",
    params=NoneParams,
    build=Full,
)
