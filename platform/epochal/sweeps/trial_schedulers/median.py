"""The median stopping rule: a trial ends where it has never been as good as half of the others are on average.

After section 3.2.2 of Golovin, Solnik, Moitra, Kochanski, Karro and Sculley, "Google Vizier: A Service for Black-Box
Optimization", KDD 2017: the best value of a trial so far against the median of the running averages of the others, up
to the same length. Those that were stopped count too, as in Optuna's ``MedianPruner``.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Iterator
from statistics import median
from typing import Annotated

from pydantic import Field

from epochal.errors import Problem
from epochal.spec.job import JobSpec
from epochal.sweeps.entries import Params
from epochal.sweeps.ranking import full_length, mode_of, next_length, ranking
from epochal.sweeps.searcher import sweep_of
from epochal.sweeps.trial_scheduler import GoOn, Next, Rung, Stop, TrialSchedulerEntry, Verdict
from epochal.sweeps.trial_schedulers.ready import Ready
from epochal.sweeps.trials import Trial
from epochal.units import Interval


class MedianParams(Params):
    interval: Interval | None = None
    """How often a trial is compared after `min`; default: as often as that."""
    startup: Annotated[int, Field(ge=1)] = 5
    """So many other trials must have reached a length before any is ended there."""


def interval_in_the_unit_of_min(params: MedianParams, spec: JobSpec) -> Iterator[Problem]:
    first = sweep_of(spec).trial_scheduler.min
    if params.interval is not None and params.interval.unit != first.unit:
        message = f"expected {first.unit}, as min is ({first}), got {params.interval}"
        yield Problem("sweep.trial_scheduler.interval", message, value=str(params.interval))


class Median:
    """A trial goes on from one length to the next until it is worse than half of the others."""

    def __init__(self, params: MedianParams, spec: JobSpec) -> None:
        first = sweep_of(spec).trial_scheduler.min
        self._first, self._interval = first.value, (params.interval or first).value
        self._full = full_length(spec)
        self._startup = params.startup
        self._rank = ranking(mode_of(spec))
        self._averages: defaultdict[float, list[float]] = defaultdict(list)
        """By length: the running averages of all that have reached it; lower is better, NaN is infinity."""
        self._ready = Ready()

    def rungs(self, trials: int) -> tuple[Rung, ...]:
        lengths = [self._first]
        while lengths[-1] < self._full:
            lengths.append(next_length(lengths[-1], self._interval, self._full))
        return tuple(Rung(length, trials) for length in lengths)

    def first(self) -> float:
        return self._first

    def started(self, trial: Trial) -> None:
        self._ready.discard(trial.number)

    def reached(self, trial: Trial) -> Verdict:
        losses = [self._loss(measured.value) for measured in trial.curve]
        others = self._averages[trial.length]
        stops = len(others) >= self._startup and min(losses) > median(others)
        average = sum(losses) / len(losses)
        # Only now: a trial is compared with the others. NaN would break the order that `insort` keeps.
        insort(others, math.inf if math.isnan(average) else average)
        if stops:
            return Stop(f"worse than the median of the others at length {trial.length:g}")
        until = next_length(trial.length, self._interval, self._full)
        self._ready.add(0, (False, 0.0, trial.number), Next(trial.number, until))
        return GoOn(until)

    def ended(self, trial: Trial) -> None:
        self._ready.discard(trial.number)

    def next(self, holds: int | None, more: bool) -> Next | None:
        return self._ready.first(holds)

    def _loss(self, value: float) -> float:
        diverged, loss, _ = self._rank(value, 0)
        return math.inf if diverged else loss


ENTRY = TrialSchedulerEntry(
    summary="A trial ends where its best is worse than the median of the others' averages at the same length",
    source="Golovin, Solnik, Moitra and others 2017, Google Vizier, section 3.2.2",
    params=MedianParams,
    build=Median,
    problems=interval_in_the_unit_of_min,
)
