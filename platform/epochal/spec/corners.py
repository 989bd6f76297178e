"""The corners of a sweep's space: points where everything searched is at an end or at one of its choices.

Whoever checks a spec checks it there too, so that no trial is one that cannot run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random
from typing import Any

from epochal.errors import Problem
from epochal.spec.space import Entry, Searched
from epochal.spec.tree import overlaps

MOST = 256
"""So many corners are all looked at; of more, each end and choice alone, and as many as this drawn at random."""
MOST_ALONE = 2048
"""Of more ends and choices than this, in the order of the space, the others are looked at only where they are drawn."""
_SHOWN = 40

Space = Mapping[str, Entry]
Point = Mapping[str, Any]
Judge = Callable[[Point], Sequence[Problem]]
"""What is wrong with a spec at a point, which may leave out some of the space."""


@dataclass(frozen=True)
class Corner:
    """``place`` is where the user wrote the point down; empty for one of the space itself."""

    point: Point
    place: str = ""


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same as JSON has them: ``1`` is not ``true``."""
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)


def is_in(entry: Searched, point: Point) -> bool:
    """Whether a field is searched at ``point``, which has all that its ``when`` names."""
    return all(
        path in point and any(same(point[path], value) for value in values) for path, values in entry.when.items()
    )


def in_order(space: Space) -> list[str]:
    """The paths, each after those that its ``when`` names. Those of a circle are left out."""
    ordered: dict[str, None] = {}
    waiting = list(space)
    while ready := [path for path in waiting if all(other in ordered for other in space[path].when)]:
        ordered |= dict.fromkeys(ready)
        waiting = [path for path in waiting if path not in ordered]
    return list(ordered)


def corners(space: Space, points: Sequence[Point] = ()) -> Iterator[Corner]:
    """Corners of ``space``, and the ``points`` of the user's own, completed with ends of what they leave out."""
    order = in_order(space)
    everything = list(islice(_all(space, order, {}), MOST + 1))
    if len(everything) <= MOST:
        yield from map(Corner, everything)
    else:
        alone = (Corner(point) for path in order for point in _alone(space, order, path))
        yield from islice(alone, MOST_ALONE)
        yield from (Corner(_completed(space, order, {}, Random(number))) for number in range(MOST))
    for index, point in enumerate(points):
        yield Corner(_completed(space, order, point), f"sweep.points.{index}")


def problems_at(corners: Iterable[Corner], judge: Judge) -> list[Problem]:
    """The problems at ``corners``, one for each path, at the line of the sweep that brings it about."""
    found: dict[str, Problem] = {}
    for corner in corners:
        for problem in judge(corner.point):
            if problem.path not in found:
                found[problem.path] = _placed(problem, corner, judge)
    return list(found.values())


def _all(space: Space, order: Sequence[str], point: Point) -> Iterator[Point]:
    if not order:
        yield point
    elif not is_in(space[order[0]], point):
        yield from _all(space, order[1:], point)
    else:
        for _, value in space[order[0]].ends():
            yield from _all(space, order[1:], {**point, order[0]: value})


def _alone(space: Space, order: Sequence[str], path: str) -> Iterator[Point]:
    """Points with each end of ``path``, where its condition holds; all else at its first."""
    needed: dict[str, Any] = {}
    waiting = [path]
    while waiting:
        for other, values in space[waiting.pop()].when.items():
            needed[other] = values[0]
            waiting.append(other)
    for _, value in space[path].ends():
        yield _completed(space, order, {**needed, path: value})


def _completed(space: Space, order: Sequence[str], given: Point, random: Random | None = None) -> Point:
    """``given``, and of what it leaves out the first end, or one drawn."""
    point = dict(given)
    for path in order:
        if path not in point and is_in(space[path], point):
            ends = space[path].ends()
            point[path] = (random.choice(ends) if random else ends[0])[1]
    return point


def _placed(problem: Problem, corner: Corner, judge: Judge) -> Problem:
    """The problem where it comes from: at the values without which it is not there, if there are any."""
    # A value without which the problem stays is not to blame, and is left out when the next one is tried.
    blamed = dict(corner.point)
    for path in corner.point:
        without = {other: value for other, value in blamed.items() if other != path}
        if any(other.path == problem.path for other in judge(without)):
            blamed = without
    if not blamed:
        return problem
    steps = tuple(problem.path.split("."))
    inside = next((path for path in blamed if overlaps(tuple(path.split(".")), steps)), None)
    told = problem.message if inside else f"{problem.path}: {problem.message}"
    others = [f"{path} is {_short(value)}" for path, value in blamed.items() if path != inside]
    where = f", where {' and '.join(others)}" if others else ""
    return replace(problem, path=corner.place or f"sweep.space.{inside or list(blamed)[-1]}", message=f"{told}{where}")


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
