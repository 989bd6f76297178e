"""Optuna's samplers as pure functions of a history: a study is made for one suggestion, and nothing is stored."""

from __future__ import annotations

from collections.abc import Container, Iterable
from math import inf
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from epochal.sweeps.searcher import DIGITS, Observation
from epochal.sweeps.space import Dimension, Space
from epochal.sweeps.trials import Point


class _Trials(InMemoryStorage):
    """A study whose trials are told, not run."""

    # To add them to a study one by one, which checks and copies each, takes longer than the suggestion itself.

    def __init__(self, trials: list[FrozenTrial]) -> None:
        super().__init__()
        self._trials = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]


class Suggester:
    """Asks a sampler for points of ``space``."""

    def __init__(self, space: Space) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # it tells of every study that is made
        self._space = space
        self._distributions = {dimension.path: _distribution(dimension) for dimension in space.dimensions}
        self._options = {dimension.path: dimension.options for dimension in space.dimensions}

    def suggest(self, sampler: BaseSampler, trials: Iterable[FrozenTrial]) -> Point:
        """The sampler's next point after ``trials``; a range is a number from 0 to 1 to it."""
        study = optuna.create_study(storage=_Trials(list(trials)), sampler=sampler, direction="minimize")
        trial = study.ask()

        def unit(dimension: Dimension) -> float:
            if (options := self._options[dimension.path]) is not None:
                index: int = trial.suggest_categorical(dimension.path, range(options))
                return (index + 0.5) / options
            return round(trial.suggest_float(dimension.path, 0.0, 1.0), DIGITS)

        return self._space.point(unit)

    def frozen(self, place: int, observed: Observation) -> FrozenTrial:
        """A trial as Optuna has it. ``place`` in the history counts from 1: 0 is the one that is asked for."""
        # TPE ranks pruned trials after complete ones, those with a later step first and those without any last.
        value = None if observed.value == inf else observed.value
        state = OptunaState.COMPLETE if value is not None and observed.completed else OptunaState.PRUNED
        step = round(observed.length * 1000)  # whole numbers to Optuna, and a length may be half an epoch
        params = {path: self._external(path, unit) for path, unit in observed.units.items()}
        return FrozenTrial(
            number=place,
            trial_id=place,
            state=OptunaState.RUNNING if observed.value is None else state,
            value=value if state is OptunaState.COMPLETE else None,
            datetime_start=None,
            datetime_complete=None,
            params=params,
            distributions={path: self._distributions[path] for path in params},
            user_attrs={},
            system_attrs={},
            intermediate_values={} if value is None else {step: value},
        )

    def _external(self, path: str, unit: float) -> Any:
        options = self._options[path]
        return unit if options is None else min(int(unit * options), options - 1)


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.options is not None:  # by index: Optuna stores no lists or mappings as choices
        return CategoricalDistribution(range(dimension.options))
    return FloatDistribution(0.0, 1.0)
