"""Gaussian process: a model of the objective says where the greatest improvement is expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from epochal.errors import Problem
from epochal.spec.job import JobSpec
from epochal.sweeps.entries import Params
from epochal.sweeps.searcher import History, Observation, SearcherEntry, seed_of, sweep_of
from epochal.sweeps.trials import Point, Trial, TrialState

if TYPE_CHECKING:
    from epochal.sweeps.searchers.optuna_study import Suggester


class GpParams(Params):
    startup: Annotated[int, Field(ge=2, le=1000)] = 10
    """Points drawn at random until so many trials are measured at one length."""
    most: Annotated[int, Field(ge=10, le=2000)] = 100
    """The model is of so many trials at most, the best and the newest: a suggestion takes the cube of it."""


class GaussianProcess:
    """Optuna's, with expected improvement. The model is of what was measured at the longest length that enough trials
    have reached; trials that failed or diverged count as the worst of them."""

    def __init__(self, params: GpParams, spec: JobSpec) -> None:
        self._params, self._seed = params, sweep_of(spec).search.seed
        self._history = History(spec)

    def suggest(self, number: int, history: Sequence[Trial]) -> Point:
        known = self._at_one_length(history)
        if sum(one.value is not None for one in known) < self._params.startup:
            return self._history.space.drawn(self._seed, number)
        from optuna.samplers import GPSampler

        sampler = GPSampler(
            seed=seed_of(self._seed, number), n_startup_trials=self._params.startup, warn_independent_sampling=False
        )
        trials = [self._suggester.frozen(place, one) for place, one in enumerate(known, 1)]
        return self._suggester.suggest(sampler, trials)

    def _at_one_length(self, history: Sequence[Trial]) -> list[Observation]:
        """What is known at the longest length with enough trials, as BOHB does (Falkner, Klein, Hutter 2018)."""
        by_number = {trial.number: trial for trial in history}
        observations = self._history.observations(history)
        curves = {one.number: self._history.by_length(by_number[one.number]) for one in observations}
        counts = Counter(length for curve in curves.values() for length in curve)
        lengths = [length for length, count in counts.items() if count >= self._params.startup]
        if not lengths:
            return []
        values = {number: curve.get(max(lengths)) for number, curve in curves.items()}
        worst = max((value for value in values.values() if value is not None and value < inf), default=0.0)
        known: list[Observation] = []
        for one in observations:
            value, failed = values[one.number], by_number[one.number].state is TrialState.FAILED
            if failed or value is not None:
                # Complete, wherever it stands: of others Optuna's sampler learns nothing.
                settled = worst if failed or value is None or value == inf else value
                known.append(replace(one, value=settled, completed=True))
        running = [one for one in observations if by_number[one.number].state is TrialState.RUNNING]
        measured = {one.number for one in known}
        waiting = [replace(one, value=None) for one in running if one.number not in measured]
        return sorted([*self._newest_and_best(known), *waiting], key=lambda one: one.number)

    def _newest_and_best(self, known: list[Observation]) -> list[Observation]:
        if len(known) <= self._params.most:
            return known
        best = sorted(known, key=lambda one: (one.value, one.number))[: self._params.most // 2]
        rest = [one for one in known if one not in best]
        return best + rest[len(best) - self._params.most :]

    @cached_property
    def _suggester(self) -> Suggester:
        from epochal.sweeps.searchers.optuna_study import Suggester

        return Suggester(self._history.space)


def problems(params: Params, spec: JobSpec) -> Iterable[Problem]:
    for path, entry in sweep_of(spec).searched.items():
        if entry.when:
            yield Problem(f"sweep.space.{path}.when", "gp models one space, and a condition makes it several",
                          hint="remove the condition, or search with tpe")  # fmt: skip


ENTRY = SearcherEntry(
    summary="Goes where a Gaussian process expects the greatest improvement; for few, dear trials",
    source="Jones, Schonlau, Welch 1998, Efficient global optimization of expensive functions; as Optuna has it",
    params=GpParams,
    build=GaussianProcess,
    problems=problems,
)
