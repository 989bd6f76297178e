"""CMA-ES: a normal distribution over the space that moves, and turns, towards the better trials of each generation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import log
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from epochal.errors import Problem
from epochal.spec.job import JobSpec
from epochal.spec.space import ChoiceOf, Ranged
from epochal.sweeps.entries import Params
from epochal.sweeps.searcher import DIGITS, History, Observation, SearcherEntry, seed_of, sweep_of
from epochal.sweeps.trials import Point, Trial

if TYPE_CHECKING:
    from cmaes import CMA
    from numpy import ndarray


class CmaEsParams(Params):
    population: Annotated[int, Field(ge=4, le=1000)] | None = None
    """Trials of a generation; default 4 + 3 ln(fields searched), rounded down."""
    sigma: Annotated[float, Field(gt=0, le=1)] = 1 / 6
    """The first standard deviation, as a share of each range."""


class CmaEs:
    """Trials make generations in the order of their numbers, once they are measured. Of a generation those are better
    that went further, and of equal lengths those with the better value; those that failed or diverged come last."""

    def __init__(self, params: CmaEsParams, spec: JobSpec) -> None:
        self._params, self._seed = params, sweep_of(spec).search.seed
        self._history = History(spec)
        self._paths = [dimension.path for dimension in self._history.space.dimensions]
        self._population = params.population or 4 + int(3 * log(len(self._paths)))

    def suggest(self, number: int, history: Sequence[Trial]) -> Point:
        measured = [one for one in self._history.observations(history) if one.value is not None]
        evolved = self._evolved(measured)
        evolved.reseed_rng(seed_of(self._seed, number))
        units = dict(zip(self._paths, evolved.ask().tolist(), strict=True))
        return self._history.space.point(lambda dimension: round(units[dimension.path], DIGITS))

    def _evolved(self, measured: Sequence[Observation]) -> CMA:
        """The distribution after every whole generation; a new one where it has converged."""
        cma, starts = self._fresh(0), 0
        for first in range(0, len(measured) - self._population + 1, self._population):
            generation = measured[first : first + self._population]
            best_first = sorted(generation, key=lambda one: (one.rank, one.number))
            order = {one.number: place for place, one in enumerate(best_first)}
            # Places, as values at different lengths do not compare: the update looks at nothing but the order.
            cma.tell([(self._vector(one), float(order[one.number])) for one in generation])
            if cma.should_stop():
                starts += 1
                cma = self._fresh(starts)
        return cma

    def _fresh(self, starts: int) -> CMA:
        import numpy as np
        from cmaes import CMA

        random = np.random.default_rng(seed_of(self._seed, -1 - starts))
        count = len(self._paths)
        return CMA(
            mean=np.full(count, 0.5) if starts == 0 else random.random(count),
            sigma=self._params.sigma,
            bounds=np.array([[0.0, 1.0]] * count),
            population_size=self._population,
            seed=0,  # what is drawn has a seed of its own, for each suggestion
        )

    def _vector(self, observed: Observation) -> ndarray:
        import numpy as np

        return np.array([observed.units[path] for path in self._paths])


def problems(params: Params, spec: JobSpec) -> Iterable[Problem]:
    ranges = 0
    for path, entry in sweep_of(spec).searched.items():
        if entry.when or isinstance(entry, ChoiceOf):
            what = "a condition" if entry.when else "a choice"
            yield Problem(f"sweep.space.{path}", f"cmaes searches ranges of numbers, and this is {what}",
                          hint="search with tpe, or remove it")  # fmt: skip
        ranges += isinstance(entry, Ranged)
    if ranges < 2:
        yield Problem("sweep.space", f"cmaes needs at least two ranges to search, and there is {ranges or 'none'}",
                      hint="search with tpe")  # fmt: skip


ENTRY = SearcherEntry(
    summary="Moves a normal distribution towards the better trials; for ranges alone, and hundreds of trials",
    source="Hansen, Ostermeier 2001, Completely derandomized self-adaptation in evolution strategies",
    params=CmaEsParams,
    build=CmaEs,
    problems=problems,
)
