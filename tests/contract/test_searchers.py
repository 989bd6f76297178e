"""What every searcher does, on every space that it takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import inf, log10, nan
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from epochal.errors import SpecError
from epochal.spec import load_text
from epochal.spec.corners import is_in
from epochal.spec.job import JobSpec
from epochal.sweeps.check import check, searcher_of
from epochal.sweeps.searchers import SEARCHERS
from epochal.sweeps.space import Space
from epochal.sweeps.trials import Measured, Point, Trial, TrialState

LR, CLIP, CHANNELS = "train.optimizer.lr", "train.clip_grad_norm", "model.params.channels"
SPACES: dict[str, dict[str, Any]] = {
    "ranges": {
        LR: {"dist": "loguniform", "low": 1e-4, "high": 1.0},
        CLIP: {"dist": "uniform", "low": 0.5, "high": 2.5},
        "train.optimizer.weight_decay": {"dist": "lognormal", "mean": -7, "sigma": 1, "high": 0.01},
        "train.lr_schedule.warmup": {"dist": "normal", "mean": 0.1, "sigma": 0.1, "low": 0, "high": 0.9},
        "train.seed": 5,
    },
    "steps": {
        LR: {"dist": "loguniform", "low": 0.5, "high": 2, "step": 0.5},
        CLIP: {"dist": "uniform", "low": 0.1, "high": 0.5, "step": 0.1},
        "train.global_batch_size": {"dist": "int", "low": 16, "high": 64, "step": 16},
        "model.params.hidden": {"dist": "int", "low": 8, "high": 9, "log": True},
    },
    "choices": {
        CHANNELS: {"choice": [[16, 32], [32], [8, 8, 8]]},
        "train.optimizer": {"choice": [{"name": "sgd", "lr": 0.1}, {"name": "adam"}]},
        "train.precision": {"choice": ["fp32", "bf16"]},
        "train.compile": {"choice": [True, False]},
    },
    "conditions": {
        "model.params.dropout": {"choice": [0.1, 0.2], "when": {"model.name": ["mlp"], "model.params.norm": ["batch"]}},
        "model.name": {"choice": ["mlp", "cnn"]},
        "model.params.norm": {"choice": ["batch", "none"], "when": {"model.name": ["mlp"]}},
        CHANNELS: {"value": [8], "when": {"model.name": ["cnn"]}},
        "train.global_batch_size": {"dist": "int", "low": 16, "high": 48, "step": 16, "when": {"model.name": ["cnn"]}},
    },
}
TAKES = {
    "grid": {"steps", "choices", "conditions"},
    "random": set(SPACES),
    "sobol": set(SPACES),
    "tpe": set(SPACES),
    "gp": {"ranges", "steps", "choices"},
    "cmaes": {"ranges", "steps"},
}
SLOW = {"gp": pytest.mark.slow}
"""A suggestion takes seconds."""


def cases(*names: str) -> list[Any]:
    return [pytest.param(name, marks=SLOW.get(name, ())) for name in names]


ALL = cases(*SEARCHERS)
LEARN = cases("tpe", "gp", "cmaes")
QUICK = {"tpe": {"startup": 4}, "gp": {"startup": 4}, "cmaes": {"population": 4}}
"""Parameters with which few trials are enough to see a searcher at work."""
CASES = [
    pytest.param(name, space, marks=SLOW.get(name, ()))
    for name in SEARCHERS
    for space in SPACES
    if space in TAKES[name]
]


def sweep(name: str, space: str = "ranges", mode: str = "min", **search: Any) -> JobSpec:
    spec = {
        "version": 1,
        "name": "sweep",
        "model": {"name": "cnn"},
        "data": {"name": "digits"},
        "train": {"epochs": 9},
        "objective": {"metric": "val/loss", "mode": mode},
        "sweep": {"search": {"name": name} | search, "space": SPACES[space], "trials": 1000},
    }
    return load_text(json.dumps(spec), Path("/spec"), checks=[check]).spec


def loss(point: Point) -> float:
    """Lowest at a learning rate of 0.01 and a norm of 1."""
    return (log10(point.get(LR, 1)) + 2) ** 2 + (point.get(CLIP, 1) - 1) ** 2


def trial(number: int, point: Point, value: float, length: float = 9.0) -> Trial:
    return Trial(number, point, TrialState.COMPLETED, length, (Measured(length, value),))


def searched(spec: JobSpec, count: int, sign: float = 1.0) -> list[Trial]:
    """A sweep of ``count`` trials, one after the other."""
    searcher, history = searcher_of(spec), list[Trial]()
    for number in range(count):
        point = searcher.suggest(number, history)
        if point is None:
            break
        history.append(trial(number, point, sign * loss(point)))
    return history


def points(history: Sequence[Trial]) -> list[Point]:
    return [one.point for one in history]


def test_every_searcher_is_tested_on_every_space_that_it_takes() -> None:
    for name in SEARCHERS:
        for space in SPACES.keys() - TAKES[name]:
            with pytest.raises(SpecError) as caught:
                sweep(name, space)
            assert all(problem.path.startswith("sweep.") and problem.hint for problem in caught.value.problems)


@pytest.mark.parametrize(("name", "space"), CASES)
def test_points_are_of_the_space_and_survive_json(name: str, space: str) -> None:
    spec = sweep(name, space, **QUICK.get(name, {}))
    assert spec.sweep is not None
    fields = spec.sweep.searched
    for point in points(searched(spec, 12)):
        assert json.loads(json.dumps(point)) == point
        assert point.keys() == {path for path, entry in fields.items() if is_in(entry, point)}
        assert Space(fields).units(point) is not None
        for path, value in point.items():
            ends = [end for _, end in fields[path].ends()]
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert min(ends) <= value <= max(ends)
                assert type(value) is type(ends[0])
            else:
                assert value in ends


@pytest.mark.parametrize(("name", "space"), CASES)
def test_a_new_searcher_goes_on_as_the_old_one_would_have(name: str, space: str) -> None:
    spec = sweep(name, space, seed=3, **QUICK.get(name, {}))
    history = searched(spec, 10)
    for number in (0, 3, len(history) - 1):
        assert searcher_of(spec).suggest(number, history[:number]) == history[number].point
    same = searcher_of(spec)
    assert same.suggest(5, history[:5]) == same.suggest(5, history[:5])


@pytest.mark.parametrize("name", cases("random", "sobol", "tpe", "gp", "cmaes"))
def test_another_seed_is_another_search(name: str) -> None:
    found = [points(searched(sweep(name, "ranges", seed=seed, **QUICK.get(name, {})), 8)) for seed in (0, 1)]
    assert all(one != other for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["random", "sobol"])
def test_what_others_found_changes_nothing(name: str) -> None:
    searcher = searcher_of(sweep(name))
    history = [trial(number, point, -number) for number, point in enumerate(points(searched(sweep("random"), 5)))]
    assert [searcher.suggest(number, history) for number in range(8)] == points(searched(sweep(name), 8))


@pytest.mark.parametrize("name", ALL)
def test_no_trial_ever_gives_a_number(name: str) -> None:
    """Failed, diverged, lost, and running trials; the search goes on."""
    spec = sweep(name, "steps", **QUICK.get(name, {}))
    searcher, history = searcher_of(spec), list[Trial]()
    for number in range(10):
        point = searcher.suggest(number, history)
        assert point is not None
        state = (TrialState.FAILED, TrialState.COMPLETED, TrialState.STOPPED, TrialState.RUNNING)[number % 4]
        curve = () if number % 4 in (0, 3) else (Measured(1.0, nan), Measured(3.0, inf if number % 2 else nan))
        history.append(Trial(number, point, state, 3.0, curve))


@pytest.mark.parametrize("name", ALL)
def test_trials_outside_the_space_are_no_obstacle(name: str) -> None:
    """A user may add any point, repeat one with another seed, and an earlier sweep may have had another space."""
    spec = sweep(name, "steps", **QUICK.get(name, {}))
    history = searched(spec, 6)
    foreign = [
        trial(-2, {"train.precision": "bf16"}, 1.0),
        trial(-1, {LR: 77.0, CLIP: 0.1, "train.global_batch_size": 16, "model.params.hidden": 8}, 1.0),
    ]
    repeated = replace(history[0], number=6, point={**history[0].point, "train.seed": 99})
    with_them = searcher_of(spec).suggest(7, [*foreign, *history, repeated])
    assert with_them is not None
    if name != "cmaes":  # a repeat counts there, in the next generation
        assert "train.seed" not in with_them
    assert searcher_of(spec).suggest(6, [*foreign, *history]) == searcher_of(spec).suggest(6, history)


@pytest.mark.parametrize("name", LEARN)
def test_a_search_for_the_most_is_that_for_the_least_of_the_negative(name: str) -> None:
    found = [
        points(searched(sweep(name, mode=mode, **QUICK[name]), 10, sign))
        for mode, sign in (("min", 1.0), ("max", -1.0))
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("name", LEARN)
def test_a_warm_start_begins_where_the_earlier_sweep_was_best(name: str) -> None:
    earlier = [
        trial(number - 40, one.point, loss(one.point)) for number, one in enumerate(searched(sweep("random"), 40))
    ]
    spec = sweep(name, **({"from": "earlier"} | QUICK[name]))
    searcher = searcher_of(spec)
    cold = [loss(searcher_of(sweep(name, seed=seed)).suggest(0, [])) for seed in range(5)]
    warm = [loss(searcher.suggest(number, earlier)) for number in range(5)]
    assert median(warm) < median(cold)


@pytest.mark.parametrize("name", sorted(SEARCHERS))
def test_a_warm_start_is_refused_where_nothing_is_learnt(name: str) -> None:
    if name in QUICK:
        sweep(name, **{"from": "earlier"})
        return
    with pytest.raises(SpecError) as caught:
        sweep(name, "choices", **{"from": "earlier"})
    assert [problem.path for problem in caught.value.problems] == ["sweep.search.from"]


def test_tpe_keeps_away_from_what_is_being_tried() -> None:
    history = searched(sweep("tpe"), 15)
    searcher = searcher_of(sweep("tpe"))
    point = searcher.suggest(15, history)
    assert point is not None
    running = Trial(15, point, TrialState.RUNNING, 9.0)
    assert searcher.suggest(15, [*history, running]) != point


def test_tpe_takes_what_went_further_for_better() -> None:
    """Of paused trials those on a higher rung, whatever their values there: they were promoted."""
    spec = sweep("tpe", startup=4)
    drawn = points(searched(sweep("random"), 20))
    far = [trial(n, {**point, LR: 0.5}, 9.0, 3.0) for n, point in enumerate(drawn[:4])]
    near = [trial(n, {**point, LR: 0.001}, 1.0, 1.0) for n, point in enumerate(drawn[4:], 4)]
    paused = [replace(one, state=TrialState.PAUSED) for one in (*far, *near)]
    found = [searcher_of(spec).suggest(number, paused) for number in range(20, 40)]
    assert median(point[LR] for point in found if point is not None) > 0.1


@pytest.mark.parametrize("name", LEARN)
def test_a_training_that_early_stopping_ended_counts_as_a_whole_one(name: str) -> None:
    """To ``cmaes`` it was worse than every one that trained longer, and ``gp`` learnt nothing of it."""
    spec = sweep(name, **({"population": 6} if name == "cmaes" else {"startup": 6}))
    history = searched(sweep("random"), 6)
    stopped = [
        replace(one, curve=(Measured(3.0 + one.number / 2, one.curve[0].value),)) if one.number % 2 else one
        for one in history
    ]
    suggested = searcher_of(spec).suggest(6, stopped)
    assert suggested == searcher_of(spec).suggest(6, history)
    assert suggested != searcher_of(sweep("random")).suggest(6, ())


@pytest.mark.parametrize("ranges", [{}, {LR: {"dist": "loguniform", "low": 0.1, "high": 1}}])
def test_a_constant_is_no_range_for_cmaes(monkeypatch: pytest.MonkeyPatch, ranges: dict[str, Any]) -> None:
    monkeypatch.setitem(SPACES, "constants", {CLIP: 1.0, "train.seed": 3, **ranges})
    with pytest.raises(SpecError, match="cmaes needs at least two ranges"):
        sweep("cmaes", "constants")


def test_the_grid_is_every_combination_once_and_then_no_more() -> None:
    found = points(searched(sweep("grid", "conditions"), 100))
    assert len(found) == len({json.dumps(point, sort_keys=True) for point in found}) == 6
    assert searcher_of(sweep("grid", "conditions")).suggest(6, searched(sweep("grid", "conditions"), 6)) is None
    assert len(points(searched(sweep("grid", "steps"), 1000))) == 4 * 5 * 4 * 2


def test_the_grid_leaves_out_what_was_tried_already() -> None:
    everything = points(searched(sweep("grid", "choices"), 100))
    own = [trial(0, everything[5], 1.0), trial(1, {**everything[0], "train.seed": 1}, 1.0)]
    history = list(own)
    searcher = searcher_of(sweep("grid", "choices"))
    while (point := searcher.suggest(len(history), history)) is not None:
        history.append(trial(len(history), point, 1.0))
    assert points(history[2:]) == [point for number, point in enumerate(everything) if number not in (0, 5)]


@pytest.mark.parametrize(("name", "count", "seeds"), [("tpe", 40, 5), ("cmaes", 80, 5)])
def test_it_finds_better_ones_than_random_search(name: str, count: int, seeds: int) -> None:
    assert best(name, count, seeds) < best("random", count, seeds)


@pytest.mark.slow
def test_the_gaussian_process_finds_better_ones_than_random_search() -> None:
    assert best("gp", 25, 3) < best("random", 25, 3)


def best(name: str, count: int, seeds: int) -> float:
    """The median over seeds of the best of ``count`` trials."""
    return median(min(loss(one.point) for one in searched(sweep(name, seed=seed), count)) for seed in range(seeds))
