"""What distributions may be: their ends and their values."""

from __future__ import annotations

from math import exp
from typing import Any

import pytest
from pydantic import TypeAdapter

from epochal.spec.corners import MOST, corners, in_order
from epochal.spec.space import Distribution, Entry, Ranged, entry_of

READ: TypeAdapter[Any] = TypeAdapter(Distribution)


def entry(**written: Any) -> Entry:
    return entry_of(READ.validate_python(written))


def ranged(**written: Any) -> Ranged:
    found = entry(**written)
    assert isinstance(found, Ranged)
    return found


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ({"dist": "uniform", "low": 0.1, "high": 0.5, "step": 0.1}, [0.1, 0.2, 0.3, 0.4, 0.5]),
        ({"dist": "uniform", "low": 0.0, "high": 1.0, "step": 0.3}, [0.0, 0.3, 0.6, 0.9]),
        ({"dist": "int", "low": 1, "high": 6, "step": 2}, [1, 3, 5]),
        ({"dist": "int", "low": 1, "high": 4, "log": True}, [1, 2, 3, 4]),
        ({"dist": "loguniform", "low": 0.5, "high": 2.0, "step": 0.5}, [0.5, 1.0, 1.5, 2.0]),
        ({"dist": "normal", "mean": 0.1, "sigma": 0.25, "step": 0.5}, [-0.5, 0.0, 0.5, 1.0]),
        ({"dist": "normal", "mean": 0.0, "sigma": 9.0, "low": 0.25, "high": 1.5, "step": 0.5}, [0.25, 0.75, 1.25]),
        ({"dist": "lognormal", "mean": 0.0, "sigma": 0.25, "step": 1.0}, [1.0, 2.0]),
    ],
)
def test_steps_are_counted_from_the_lower_bound_and_exact(written: dict[str, Any], values: list[float]) -> None:
    found = ranged(**written)
    assert list(found.values()) == values
    assert found.count() == len(values)
    assert [type(value) for value in found.values()] == [type(value) for value in values]
    assert [value for _, value in found.ends()] == [values[0], values[-1]]


def test_a_normal_one_ends_four_sigma_from_its_mean_or_at_its_bounds() -> None:
    assert ranged(dist="normal", mean=1.0, sigma=0.5).bounds == (-1.0, 3.0)
    assert ranged(dist="normal", mean=1.0, sigma=0.5, low=0.0, high=9.0).bounds == (0.0, 3.0)
    assert ranged(dist="lognormal", mean=-7.0, sigma=1.0).bounds == (exp(-11), exp(-3))
    assert ranged(dist="lognormal", mean=-7.0, sigma=1.0, high=0.01).bounds == (exp(-11), 0.01)


def test_what_goes_to_a_step_goes_to_the_nearest() -> None:
    found = ranged(dist="loguniform", low=0.5, high=2.0, step=0.5)
    assert [found.nearest(value) for value in (0.1, 0.7, 1.3, 1.9, 5.0)] == [0.5, 0.5, 1.5, 2.0, 2.0]


@pytest.mark.parametrize(
    ("written", "ends"),
    [
        ({"dist": "uniform", "low": -1.7e308, "high": 1.7e308, "step": 1e300}, [-1.7e308, 1.7e308]),
        ({"dist": "normal", "mean": 1e308, "sigma": 1e308, "step": 1e307}, [-1.7e308, 1.7e308]),
        ({"dist": "uniform", "low": 0.0, "high": 1.0, "step": 1e-300}, [0.0, 1.0]),
    ],
)
def test_ranges_as_wide_and_as_fine_as_numbers_go(written: dict[str, Any], ends: list[float]) -> None:
    found = ranged(**written)
    assert [value for _, value in found.ends()] == ends
    assert next(iter(found.values())) == ends[0], "one after the other: nobody could list them"


SPACE = {
    "b": entry(choice=[1, 2, 3], when={"a": ["x"]}),
    "a": entry(choice=["x", "y"]),
    "c": entry(choice=[True, False], when={"b": [2], "a": ["x"]}),
    "d": entry(value=7),
}


def test_conditions_come_after_what_they_depend_on() -> None:
    assert in_order(SPACE) == ["a", "d", "b", "c"]
    assert in_order({"a": entry(choice=[1], when={"b": [1]}), "b": entry(choice=[1], when={"a": [1]})}) == []


def test_corners_are_all_points_that_the_conditions_allow() -> None:
    points = [corner.point for corner in corners(SPACE)]
    assert len(points) == 5
    assert {"a": "y", "d": 7} in points
    assert {"a": "x", "d": 7, "b": 2, "c": False} in points
    assert {"a": "x", "d": 7, "b": 3} in points


def test_a_point_is_completed_with_what_it_leaves_out() -> None:
    (corner,) = (corner for corner in corners(SPACE, [{"a": "x", "b": 2}]) if corner.place)
    assert (corner.place, corner.point) == ("sweep.points.0", {"a": "x", "b": 2, "d": 7, "c": True})


def test_of_many_corners_each_end_is_there_and_the_rest_is_drawn_the_same_way_each_time() -> None:
    many = {f"p{number}": entry(choice=list(range(10))) for number in range(10)}
    space = SPACE | many
    points = [dict(corner.point) for corner in corners(space)]
    assert len(points) <= 3 * MOST
    for path, searched in space.items():
        assert {str(point[path]) for point in points if path in point} == {str(value) for _, value in searched.ends()}
    assert points == [dict(corner.point) for corner in corners(space)]
