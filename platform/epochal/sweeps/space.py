"""The space of a sweep: from numbers between 0 and 1 to points and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import exp, log
from random import Random
from statistics import NormalDist
from typing import Any, cast

from epochal.spec.corners import in_order, is_in, same
from epochal.spec.space import ChoiceOf, Constant, Entry, IntUniform, LogNormal, LogUniform, Normal, Ranged
from epochal.sweeps.trials import Point


@dataclass(frozen=True)
class Dimension:
    """A searched field, along a scale from 0 to 1 on which what it draws is uniform."""

    path: str
    entry: Ranged | ChoiceOf

    @property
    def options(self) -> int | None:
        """How many a choice has; None of a range."""
        return len(self.entry.choice) if isinstance(self.entry, ChoiceOf) else None

    def value(self, unit: float) -> Any:
        """What stands at ``unit`` of the scale."""
        if isinstance(self.entry, ChoiceOf):
            return self.entry.choice[_cell(unit, len(self.entry.choice))]
        values = self._even_values
        return values[_cell(unit, len(values))] if values else self.entry.nearest(self._scale.number(unit))

    def unit(self, value: Any) -> float | None:
        """Where a value is on the scale, in the middle of its part of it; None where it is not of this field."""
        if isinstance(self.entry, ChoiceOf):
            found = (index for index, option in enumerate(self.entry.choice) if same(option, value))
            index = next(found, None)
            return None if index is None else (index + 0.5) / len(self.entry.choice)
        low, high = self.entry.bounds
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            return None
        values = self._even_values
        if values:
            return (min(range(len(values)), key=lambda index: abs(values[index] - value)) + 0.5) / len(values)
        return min(max(self._scale.unit(value), 0.0), 1.0)

    @cached_property
    def _even_values(self) -> list[int | float]:
        """The values of a stepped range on a linear scale, each as likely as the others; none of other ranges."""
        # Rounding would favour the last where `high` lies beyond it: of 0 to 1 in steps of 0.3 it is 0.9.
        linear = not isinstance(self.entry, LogUniform | Normal | LogNormal)
        linear = linear and not (isinstance(self.entry, IntUniform) and self.entry.log)
        count = cast(Ranged, self.entry).count()
        if not linear or count is None or count > _FEW:
            return []
        return list(cast(Ranged, self.entry).values())

    @cached_property
    def _scale(self) -> _Scale:
        return _scale_of(cast(Ranged, self.entry))


_FEW = 10_000
"""Of more values than this, which one is drawn is found by rounding."""


@dataclass(frozen=True)
class _Scale:
    number: Callable[[float], float]
    unit: Callable[[float], float]


def _scale_of(entry: Ranged) -> _Scale:
    low, high = entry.bounds
    if isinstance(entry, Normal):
        return _normal(NormalDist(entry.mean, entry.sigma), low, high)
    if isinstance(entry, LogNormal):
        inner = _normal(NormalDist(entry.mean, entry.sigma), log(low), log(high))
        return _Scale(lambda unit: exp(inner.number(unit)), lambda value: inner.unit(log(value)))
    half = (entry.spacing or 0.0) / 2  # the first and the last step get as much of the scale as those between
    if isinstance(entry, LogUniform) or (isinstance(entry, IntUniform) and entry.log):
        first, last = log(low - min(half, low / 2)), log(high + half)  # half a step below may be 0, which has no log
        return _Scale(
            lambda unit: exp(first + unit * (last - first)), lambda value: (log(value) - first) / (last - first)
        )
    first, last = low - half, high + half
    return _Scale(lambda unit: first + unit * (last - first), lambda value: (value - first) / (last - first))


def _normal(normal: NormalDist, low: float, high: float) -> _Scale:
    first, last = normal.cdf(low), normal.cdf(high)
    return _Scale(
        lambda unit: normal.inv_cdf(first + unit * (last - first)),
        lambda value: (normal.cdf(value) - first) / (last - first),
    )


def _cell(unit: float, count: int) -> int:
    return min(int(unit * count), count - 1)


class Space:
    """What a sweep searches. ``dimensions`` has the fields that vary, each after those it depends on."""

    def __init__(self, searched: Mapping[str, Entry]) -> None:
        self.searched = searched
        self._order = in_order(searched)
        varying = {path: entry for path in self._order if not isinstance(entry := searched[path], Constant)}
        self.dimensions = tuple(Dimension(path, entry) for path, entry in varying.items())
        self._dimension = {dimension.path: dimension for dimension in self.dimensions}

    def point(self, units: Callable[[Dimension], float], given: Point | None = None) -> Point:
        """The point at ``units``, which is asked for each dimension that is in it, in order; ``given`` goes first."""
        point: dict[str, Any] = dict(given or {})
        for path in self._order:
            entry = self.searched[path]
            if path in point or not is_in(entry, point):
                continue
            if isinstance(entry, Constant):
                point[path] = entry.value
            else:
                point[path] = self._dimension[path].value(units(self._dimension[path]))
        return point

    def drawn(self, seed: int, number: int, given: Point | None = None) -> Point:
        """A point at random, the same for the same seed and number; ``given`` is completed."""
        random = Random(f"{seed}/{number}")
        # For all, also those that are given or not in this point: what one draws does not depend on the others.
        units = {dimension.path: random.random() for dimension in self.dimensions}
        return self.point(lambda dimension: units[dimension.path], given)

    def units(self, point: Point) -> dict[str, float] | None:
        """Where a point is along each dimension that is in it; None where it is no point of this space."""
        found: dict[str, float] = {}
        for dimension in self.dimensions:
            if is_in(dimension.entry, point):
                unit = dimension.unit(point.get(dimension.path))
                if unit is None:
                    return None
                found[dimension.path] = unit
        return found

    def key(self, point: Point) -> str:
        """The same text for points that are the same in this space, whatever else they have."""
        return json.dumps({path: point[path] for path in self._order if path in point}, sort_keys=True)
