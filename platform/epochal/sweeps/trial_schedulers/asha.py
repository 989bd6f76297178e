"""Asynchronous successive halving: many trials are begun, and the better ones of each rung are promoted.

After Algorithm 2 of Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht and Talwalkar, "A System for Massively
Parallel Hyperparameter Tuning", MLSys 2020. A trial whose turn has not come is paused, not ended: it may be promoted as
long as the sweep goes on, and after that, where the sweep is extended.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from epochal.errors import Problem
from epochal.spec.job import JobSpec
from epochal.sweeps.entries import Params
from epochal.sweeps.ranking import Rank, full_length, mode_of, ranking
from epochal.sweeps.searcher import sweep_of
from epochal.sweeps.trial_scheduler import Next, Pause, Rung, TrialSchedulerEntry, Verdict
from epochal.sweeps.trials import Trial, TrialState


class AshaParams(Params):
    eta: Annotated[int, Field(ge=2, le=16)] = 3
    """One of so many trials is promoted from each rung to the next, which is so many times as long."""


def geometric_rungs(first: float, eta: int, full: float) -> tuple[float, ...]:
    """``first * eta ** k`` as long as that is below ``full``, then ``full``.

    One that is closer to the full length than by the square root of ``eta`` is left out: what it saves is little.

    >>> geometric_rungs(1, 3, 81), geometric_rungs(1, 3, 10), geometric_rungs(1, 3, 26)
    ((1, 3, 9, 27, 81), (1, 3, 10), (1, 3, 9, 26))
    """
    lengths = [first]
    while lengths[-1] * eta * math.sqrt(eta) <= full:
        lengths.append(lengths[-1] * eta)
    return (*lengths, full)


def promotes_something(params: AshaParams, spec: JobSpec) -> Iterator[Problem]:
    """One of ``eta`` is promoted, so fewer trials than that would all stay on the first rung."""
    trials = sweep_of(spec).trials
    if trials < params.eta:
        message = f"expected at least eta ({params.eta}), or no trial is ever promoted, got {trials}"
        yield Problem("sweep.trials", message, value=trials)


class Asha:
    """A trial is promoted from a rung where it is among the best ``1 / eta`` of all that have ever reached that."""

    def __init__(self, params: AshaParams, spec: JobSpec) -> None:
        first = sweep_of(spec).trial_scheduler.min.value
        self._eta = params.eta
        self._rank = ranking(mode_of(spec))
        self._lengths = geometric_rungs(first, params.eta, full_length(spec))
        self._reached: list[list[Rank]] = [[] for _ in self._lengths]
        """By rung: all that have reached it, best first."""
        self._paused: list[list[Rank]] = [[] for _ in self._lengths]
        """By rung: those that wait there to be promoted, best first."""

    def rungs(self, trials: int) -> tuple[Rung, ...]:
        return tuple(Rung(length, trials // self._eta**k) for k, length in enumerate(self._lengths))

    def first(self) -> float:
        return self._lengths[0]

    def started(self, trial: Trial) -> None:
        rung = self._lengths.index(trial.until)
        if rung > 0:  # on the first one nothing waited before
            self._leave(rung - 1, trial)

    def reached(self, trial: Trial) -> Verdict:
        rung, rank = self._lengths.index(trial.until), self._newest(trial)
        insort(self._reached[rung], rank)
        insort(self._paused[rung], rank)
        return Pause()

    def ended(self, trial: Trial) -> None:
        rung = self._lengths.index(trial.until)
        if trial.state is TrialState.COMPLETED:
            insort(self._reached[rung], self._newest(trial))
        elif trial.length == trial.until:  # its user ended it where it was paused
            self._leave(rung, trial)

    def next(self, holds: int | None, more: bool) -> Next | None:
        for rung in range(len(self._lengths) - 2, -1, -1):  # from the top, as in the paper's `get_job`
            promotable = self._promotable(rung)
            if promotable:
                number = holds if holds in promotable else promotable[0]
                return Next(number, self._lengths[rung + 1])
        return None

    def _promotable(self, rung: int) -> list[int]:
        """Numbers of the trials that may be promoted from that rung, best first."""
        reached, paused = self._reached[rung], self._paused[rung]
        found = []
        for rank in paused:
            diverged, _, number = rank
            if diverged or bisect_left(reached, rank) >= len(reached) // self._eta:
                break  # those after it are worse
            found.append(number)
        return found

    def _leave(self, rung: int, trial: Trial) -> None:
        del self._paused[rung][bisect_left(self._paused[rung], self._newest(trial))]

    def _newest(self, trial: Trial) -> Rank:
        return self._rank(trial.curve[-1].value, trial.number)


ENTRY = TrialSchedulerEntry(
    summary="Successive halving without waiting: the best of each rung so far train `eta` times as long",
    source="Li, Jamieson, Rostamizadeh and others 2020, A system for massively parallel hyperparameter tuning",
    params=AshaParams,
    build=Asha,
    problems=promotes_something,
)
