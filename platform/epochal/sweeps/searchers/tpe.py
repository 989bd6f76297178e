"""Tree-structured Parzen estimator: draws where good trials are denser than the others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from epochal.spec.job import JobSpec
from epochal.sweeps.entries import Params
from epochal.sweeps.searcher import History, Observation, SearcherEntry, seed_of, sweep_of
from epochal.sweeps.trials import Point, Trial

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from epochal.sweeps.searchers.optuna_study import Suggester


class TpeParams(Params):
    startup: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Points drawn at random until so many trials are measured."""
    candidates: Annotated[int, Field(ge=1, le=10_000)] = 24
    """Points drawn near good trials, of which the one that looks best is taken."""


class Tpe:
    """Optuna's, multivariate. Trials that ended or wait at a shorter length count less than those that went further;
    those that failed or diverged count as the worst; those that are not measured yet keep others away."""

    def __init__(self, params: TpeParams, spec: JobSpec) -> None:
        self._params, self._seed = params, sweep_of(spec).search.seed
        self._history = History(spec)
        self._frozen: dict[tuple[int, int], tuple[Observation, FrozenTrial]] = {}

    def suggest(self, number: int, history: Sequence[Trial]) -> Point:
        observations = self._history.observations(history)
        if sum(one.value is not None for one in observations) < self._params.startup:
            return self._history.space.drawn(self._seed, number)
        from optuna.samplers import TPESampler

        sampler = TPESampler(
            seed=seed_of(self._seed, number),
            n_startup_trials=self._params.startup,
            n_ei_candidates=self._params.candidates,
            multivariate=True,
            constant_liar=True,  # running trials count as bad ones, or parallel suggestions would be near each other
        )
        return self._suggester.suggest(
            sampler, [self._as_frozen(place, one) for place, one in enumerate(observations, 1)]
        )

    @cached_property
    def _suggester(self) -> Suggester:
        from epochal.sweeps.searchers.optuna_study import Suggester

        return Suggester(self._history.space)

    def _as_frozen(self, place: int, observed: Observation) -> FrozenTrial:
        # By its place too, which is the number that Optuna has it under.
        known = self._frozen.get((place, observed.number))
        if known is None or known[0] is not observed:
            known = self._frozen[place, observed.number] = (observed, self._suggester.frozen(place, observed))
        return known[1]


ENTRY = SearcherEntry(
    summary="Draws where good trials are denser than others (tree-structured Parzen estimator)",
    source="Bergstra et al. 2011, Algorithms for hyper-parameter optimization; as Optuna has it",
    params=TpeParams,
    build=Tpe,
)
