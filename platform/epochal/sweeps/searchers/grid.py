"""Grid search: every combination of the values that are listed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from epochal.errors import Problem
from epochal.spec.corners import in_order, is_in
from epochal.spec.job import JobSpec
from epochal.spec.space import Ranged
from epochal.sweeps.entries import Params
from epochal.sweeps.searcher import SearcherEntry, learns_nothing, sweep_of
from epochal.sweeps.space import Space
from epochal.sweeps.trials import Point, Trial


class GridParams(Params):
    """None: the grid is the space."""


class Grid:
    """Goes through the combinations in the order of the spec, the last field fastest, leaving out those that a trial
    has already: the user's own points may be of the grid too."""

    def __init__(self, params: GridParams, spec: JobSpec) -> None:
        self._space = Space(sweep_of(spec).searched)
        self._rest = combinations(self._space)
        self._points: list[tuple[str, Point]] = []
        self._keys: dict[int, tuple[Trial, str]] = {}

    def suggest(self, number: int, history: Sequence[Trial]) -> Point | None:
        tried = {self._key(trial) for trial in history}
        # From the first one again: a suggestion that was made beforehand may have been dropped.
        for key, point in self._points:
            if key not in tried:
                return point
        for point in self._rest:
            self._points.append((self._space.key(point), point))
            if self._points[-1][0] not in tried:
                return point
        return None

    def _key(self, trial: Trial) -> str:
        known = self._keys.get(trial.number)
        if known is None or known[0].point is not trial.point:
            known = self._keys[trial.number] = (trial, self._space.key(trial.point))
        return known[1]


def combinations(space: Space) -> Iterator[Point]:
    """Every point of a space in which all ranges have steps."""
    yield from _combined(space, in_order(space.searched), {})


def _combined(space: Space, order: Sequence[str], point: Point) -> Iterator[Point]:
    if not order:
        yield point
    elif not is_in(space.searched[order[0]], point):
        yield from _combined(space, order[1:], point)
    else:
        entry = space.searched[order[0]]
        values: Iterable[Any] = entry.values() if isinstance(entry, Ranged) else (one for _, one in entry.ends())
        for value in values:
            yield from _combined(space, order[1:], {**point, order[0]: value})


def problems(params: Params, spec: JobSpec) -> Iterable[Problem]:
    sweep = sweep_of(spec)
    yield from learns_nothing(params, spec)
    continuous = [path for path, entry in sweep.searched.items() if isinstance(entry, Ranged) and not entry.spacing]
    for path in continuous:
        yield Problem(f"sweep.space.{path}", "a grid needs values to go through, and this is a continuous range",
                      hint="use choice, give a step, or search with random or tpe")  # fmt: skip
    if not continuous:
        yield from _cut_short(sweep.trials, Space(sweep.searched))


def _cut_short(trials: int, space: Space) -> Iterable[Problem]:
    count = sum(1 for _ in islice(combinations(space), 100_001))
    if count > trials:
        told = f"{count:,} points" if count <= 100_000 else "more than 100,000 points"
        hint = f"set sweep.trials to {count}" if count <= 100_000 else "list fewer values, or search with random"
        yield Problem(
            "sweep.trials", f"the grid has {told}, of which {trials:,} would be tried", value=trials, hint=hint
        )


ENTRY = SearcherEntry(
    summary="Every combination of the values listed",
    source="Bergstra, Bengio 2012, Random search for hyper-parameter optimization, section 1",
    params=GridParams,
    build=Grid,
    problems=problems,
)
