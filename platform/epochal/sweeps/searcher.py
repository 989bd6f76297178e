"""What a searcher is, and what it is told of the trials so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from random import Random
from typing import Any, Protocol

from epochal.errors import Problem, UsageError
from epochal.spec.job import JobSpec
from epochal.spec.sweep import Sweep
from epochal.sweeps.entries import Entry, Params
from epochal.sweeps.ranking import full_length
from epochal.sweeps.space import Space
from epochal.sweeps.trials import Point, Trial, TrialState

SearcherEntry = Entry[Callable[[Any, JobSpec], "Searcher"]]
"""``build(params, spec)``, of a spec with a sweep and an objective."""


DIGITS = 6
"""Of a scale from 0 to 1 where a library computes a place on it: rounding that differs between machines goes."""


class Searcher(Protocol):
    """Chooses points. A pure function: the same number and history give the same point, also on a new object, so that
    whoever takes a sweep over gets the same trials."""

    def suggest(self, number: int, history: Sequence[Trial]) -> Point | None:
        """The point of suggestion ``number``, counted from 0; None where there is no other left.

        ``history`` has every trial so far, running ones too, in the order of their numbers; those of an earlier sweep
        come first and have negative ones. It is called in one thread at a time, and may take seconds: nobody waits for
        it but who needs the point.
        """


@dataclass(frozen=True)
class Observation:
    """What is known of a trial. ``units`` is its place, by path; ``value`` is its newest at ``length``, the lower the
    better: infinite where it failed or diverged, None where nothing is measured yet."""

    number: int
    units: dict[str, float]
    value: float | None
    length: float
    completed: bool

    @property
    def rank(self) -> tuple[float, float]:
        """Trials that got further come first: they were better than others. Those that failed come last."""
        if self.value is None or self.value == inf:
            return 0.0, inf
        # One that early stopping ended is no worse than one that needed longer. (How long a whole training was in an
        # earlier sweep is not known.)
        return -inf if self.completed and self.number >= 0 else -self.length, self.value


class History:
    """Reads trials for searchers that learn from them. Points outside the space, which users may add, are left out."""

    def __init__(self, spec: JobSpec) -> None:
        self.space = Space(sweep_of(spec).searched)
        self._full = full_length(spec)
        self._sign = -1.0 if spec.objective is not None and spec.objective.mode == "max" else 1.0
        self._seen: dict[int, tuple[Trial, Observation | None]] = {}

    def observations(self, history: Sequence[Trial]) -> list[Observation]:
        """In order of their numbers."""
        found = (self._read(trial) for trial in sorted(history, key=lambda trial: trial.number))
        return [one for one in found if one is not None]

    def by_length(self, trial: Trial) -> dict[float, float]:
        """What was measured of a trial, the lower the better. One of this sweep that is done has the full length too:
        where early stopping had enough, more would not have been better."""
        found = {measured.length: self._lower_is_better(measured.value) for measured in trial.curve}
        if trial.state is TrialState.COMPLETED and trial.number >= 0:
            found[self._full] = self._lower_is_better(trial.curve[-1].value)
        return found

    def _read(self, trial: Trial) -> Observation | None:
        known = self._seen.get(trial.number)
        if known is None or known[0] is not trial:  # trials are frozen: one that has changed is another object
            known = self._seen[trial.number] = (trial, self._observed(trial))
        return known[1]

    def _observed(self, trial: Trial) -> Observation | None:
        units = self.space.units(trial.point)
        if units is None:
            return None
        value = self._lower_is_better(trial.curve[-1].value) if trial.curve else None
        value = inf if trial.state is TrialState.FAILED else value
        return Observation(trial.number, units, value, trial.length, trial.state is TrialState.COMPLETED)

    def _lower_is_better(self, value: float) -> float:
        return self._sign * value if isfinite(value) else inf


def sweep_of(spec: JobSpec) -> Sweep:
    """
    Raises:
        UsageError: the spec is no sweep.
    """
    if spec.sweep is None:
        raise UsageError(f"{spec.name} is no sweep", "add a `sweep` block to its spec")
    return spec.sweep


def seed_of(seed: int, number: int) -> int:
    """The seed of one suggestion, 32 bits."""
    # Text seeds `Random` by its SHA-512: unlike `hash`, the same in every process.
    return Random(f"{seed}:{number}").getrandbits(32)


def learnt_from(spec: JobSpec, earlier: Sequence[Trial]) -> str:
    """What a warm start brings, in words; empty where there is none."""
    sweep = sweep_of(spec)
    if sweep.search.earlier is None:
        return ""
    count = sum(one.value is not None for one in History(spec).observations(earlier))
    rest = "; the others were not measured, or are no points of this space" if count < len(earlier) else ""
    return f"{sweep.search.name} learns from {count} of the {len(earlier)} trials of {sweep.search.earlier}{rest}"


def learns_nothing(params: Params, spec: JobSpec) -> Iterable[Problem]:
    """The problem of a warm start where points do not depend on trials."""
    search = sweep_of(spec).search
    if search.earlier is not None:
        message = f"{search.name} does not learn from trials, so it can learn nothing from earlier ones"
        yield Problem("sweep.search.from", message, value=search.earlier, hint="remove it, or search with tpe")
