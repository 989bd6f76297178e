"""From numbers between 0 and 1 to points and back."""

from __future__ import annotations

from math import exp, sqrt
from statistics import NormalDist, mean, stdev
from typing import Any

import pytest

from epochal.spec.space import ChoiceOf, Constant, IntUniform, LogNormal, LogUniform, Normal, Ranged, Uniform
from epochal.sweeps.check import check
from epochal.sweeps.space import Dimension, Space

MIDDLES = [(number + 0.5) / 2000 for number in range(2000)]


def values(entry: Ranged | ChoiceOf) -> list[Any]:
    """What is drawn, evenly over the whole of it."""
    dimension = Dimension("x", entry)
    return [dimension.value(unit) for unit in MIDDLES]


def test_half_of_a_log_uniform_one_is_below_the_geometric_mean() -> None:
    drawn = values(LogUniform(dist="loguniform", low=1e-4, high=1.0))
    assert sum(value < sqrt(1e-4) for value in drawn) == 1000
    assert 1e-4 <= min(drawn) < 1.01e-4
    assert 0.99 < max(drawn) <= 1.0


def test_a_normal_one_has_its_mean_and_deviation() -> None:
    drawn = values(Normal(dist="normal", mean=3.0, sigma=0.5))
    assert mean(drawn) == pytest.approx(3.0)
    assert stdev(drawn) == pytest.approx(0.5, rel=0.01)
    cut = values(Normal(dist="normal", mean=3.0, sigma=0.5, low=3.0))
    assert min(cut) >= 3.0
    assert sum(value < 3 + 0.5 * NormalDist().inv_cdf(0.75) for value in cut) == 1000, "the rest keeps its form"


def test_half_of_a_log_normal_one_is_below_the_exponential_of_its_mean() -> None:
    drawn = values(LogNormal(dist="lognormal", mean=-7.0, sigma=1.0))
    assert sum(value < exp(-7) for value in drawn) == 1000


@pytest.mark.parametrize("entry", [
    Uniform(dist="uniform", low=0.0, high=1.0, step=0.25),
    IntUniform(dist="int", low=1, high=5),
    IntUniform(dist="int", low=10, high=50, step=10),
])  # fmt: skip
def test_steps_are_equally_likely(entry: Ranged) -> None:
    drawn = values(entry)
    assert {drawn.count(value) for value in entry.values()} == {400}


def test_whole_numbers_on_a_log_scale_are_the_rarer_the_larger() -> None:
    drawn = values(IntUniform(dist="int", low=1, high=64, log=True))
    assert set(drawn) >= set(range(1, 33))
    assert drawn.count(1) > drawn.count(2) > drawn.count(4) > drawn.count(16)


@pytest.mark.parametrize("entry", [
    Uniform(dist="uniform", low=-2.0, high=7.0),
    Uniform(dist="uniform", low=0.1, high=0.9, step=0.2),
    Uniform(dist="uniform", low=0.0, high=1.0, step=1e-6),
    LogUniform(dist="loguniform", low=1e-4, high=1.0),
    LogUniform(dist="loguniform", low=0.5, high=4.0, step=0.5),
    IntUniform(dist="int", low=1, high=100, log=True),
    IntUniform(dist="int", low=1, high=9, step=2, log=True),
    Normal(dist="normal", mean=0.0, sigma=2.0),
    Normal(dist="normal", mean=0.0, sigma=2.0, step=0.5),
    LogNormal(dist="lognormal", mean=-7.0, sigma=1.0, low=1e-4),
    ChoiceOf(choice=[1, True, "1", [1], {"a": 1}, None]),
])  # fmt: skip
def test_a_value_is_found_again(entry: Ranged | ChoiceOf) -> None:
    dimension = Dimension("x", entry)
    for unit in (0.0, 0.01, 0.3, 0.5, 0.77, 0.999, 1.0):
        value = dimension.value(unit)
        back = dimension.unit(value)
        assert back is not None
        assert 0 <= back <= 1
        assert dimension.value(back) == (pytest.approx(value) if isinstance(value, float) else value)
        assert type(dimension.value(back)) is type(value)


def test_what_is_not_of_a_field_is_not_found() -> None:
    whole = Dimension("x", IntUniform(dist="int", low=0, high=5))
    assert [whole.unit(value) for value in (-1, 6, True, "1", None, [1])] == [None] * 6
    assert Dimension("x", ChoiceOf(choice=[1, 2])).unit(True) is None


SPACE = Space({
    "b": ChoiceOf(choice=[1, 2], when={"a": ["x"]}),
    "a": ChoiceOf(choice=["x", "y"]),
    "c": Constant(value=[3], when={"a": ["y"]}),
    "d": Uniform(dist="uniform", low=0.0, high=1.0),
})  # fmt: skip


def test_a_point_has_what_its_conditions_allow() -> None:
    assert SPACE.point(lambda dimension: 0.0) == {"a": "x", "b": 1, "d": 0.0}
    assert SPACE.point(lambda dimension: 1.0) == {"a": "y", "c": [3], "d": 1.0}
    assert SPACE.units({"a": "x", "b": 2, "d": 0.25, "other": 1}) == {"a": 0.25, "b": 0.75, "d": 0.25}
    assert SPACE.units({"a": "x", "d": 0.25}) is None
    assert SPACE.units({"a": "z", "d": 0.25}) is None


def test_a_point_of_the_users_own_is_completed_at_random() -> None:
    own = {"a": "x", "train.seed": 4}
    completed = SPACE.drawn(0, 7, own)
    assert completed.items() >= own.items()
    assert completed.keys() == {"a", "b", "d", "train.seed"}
    assert completed == SPACE.drawn(0, 7, own)
    assert len({SPACE.drawn(seed, number, own)["d"] for seed in range(3) for number in range(3)}) == 9


def test_a_grid_of_more_values_than_anybody_can_list_is_refused_at_once() -> None:
    everywhere = {"dist": "int", "low": 0, "high": 2**53}
    (found,) = check(
        {
            "version": 1,
            "name": "a",
            "model": {"name": "mlp"},
            "data": {"name": "wine"},
            "train": {"epochs": 1},
            "objective": {"metric": "val/accuracy", "mode": "max"},
            "sweep": {"search": {"name": "grid"}, "space": {"model.params.seed": everywhere}},
        }
    )
    assert (found.path, found.hint) == ("sweep.trials", "list fewer values, or search with random")
