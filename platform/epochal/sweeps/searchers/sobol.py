"""Sobol search: points that fill the space more evenly than random ones do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from epochal.spec.job import JobSpec
from epochal.sweeps.entries import Params
from epochal.sweeps.searcher import SearcherEntry, learns_nothing, sweep_of
from epochal.sweeps.space import Space
from epochal.sweeps.trials import Point, Trial

if TYPE_CHECKING:
    from numpy import ndarray


class SobolParams(Params):
    """None beside the seed, which scrambles the sequence."""


class Sobol:
    """Depends on seed and number alone. It fills the space most evenly with a power of two of points."""

    def __init__(self, params: SobolParams, spec: JobSpec) -> None:
        sweep = sweep_of(spec)
        self._space, self._seed = Space(sweep.searched), sweep.search.seed
        self._sequence: ndarray | None = None

    def suggest(self, number: int, history: Sequence[Trial]) -> Point:
        if self._sequence is None or number >= len(self._sequence):
            self._sequence = self._drawn(number + 1)
        row = self._sequence[number]
        units = {dimension.path: float(row[index]) for index, dimension in enumerate(self._space.dimensions)}
        return self._space.point(lambda dimension: units[dimension.path])

    def _drawn(self, count: int) -> ndarray:
        """The first points of the sequence, ``count`` or more: (points, dimensions)."""
        from scipy.stats.qmc import Sobol as Sequence

        # A longer sequence of the same seed begins with the shorter one: points that were suggested stay.
        sequence = Sequence(d=len(self._space.dimensions), scramble=True, rng=self._seed)
        drawn: ndarray = sequence.random_base2(max(6, (count - 1).bit_length()))
        return drawn


ENTRY = SearcherEntry(
    summary="Points that fill the space evenly, in a scrambled Sobol sequence",
    source="Sobol 1967, On the distribution of points in a cube; Owen 1998, Scrambling Sobol points",
    params=SobolParams,
    build=Sobol,
    problems=learns_nothing,
)
