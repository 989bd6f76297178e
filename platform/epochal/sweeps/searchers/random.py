"""Random search: every point is drawn by itself, from the distributions of the space."""

from __future__ import annotations

from collections.abc import Sequence

from epochal.spec.job import JobSpec
from epochal.sweeps.entries import Params
from epochal.sweeps.searcher import SearcherEntry, learns_nothing, sweep_of
from epochal.sweeps.space import Space
from epochal.sweeps.trials import Point, Trial


class RandomParams(Params):
    """None beside the seed."""


class RandomSearcher:
    """Depends on seed and number alone."""

    def __init__(self, params: RandomParams, spec: JobSpec) -> None:
        sweep = sweep_of(spec)
        self._space, self._seed = Space(sweep.searched), sweep.search.seed

    def suggest(self, number: int, history: Sequence[Trial]) -> Point:
        return self._space.drawn(self._seed, number)


ENTRY = SearcherEntry(
    summary="Points drawn at random",
    source="Bergstra, Bengio 2012, Random search for hyper-parameter optimization",
    params=RandomParams,
    build=RandomSearcher,
    problems=learns_nothing,
)
