"""Which segments of trials a slot takes together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from epochal.agent.sweep_packs import MOST, MOST_PARAMETERS, Packs
from epochal.spec.job import JobSpec
from epochal.sweeps.trials import Run


def spec(pack: Any = "auto", trials: int = 64, **train: Any) -> JobSpec:
    return JobSpec.model_validate(
        {
            "version": 1,
            "name": "wine",
            "model": {"name": "mlp"},
            "data": {"name": "wine"},
            "train": {"epochs": 4, "optimizer": {"name": "sgd", "lr": 0.1}, **train},
            "objective": {"metric": "val/loss", "mode": "min"},
            "sweep": {
                "search": {"name": "random"},
                "pack": pack,
                "trials": trials,
                "space": {"train.optimizer.lr": {"dist": "loguniform", "low": 0.001, "high": 1}},
            },
        }
    )


def packs(one: JobSpec, slots: int = 1, parameters: int | None = 1000) -> Packs:
    made = Packs(one, one.model_dump(mode="json"), slots)
    if parameters is not None:
        made.built(parameters)
    return made


def runs(points: list[dict[str, Any]] | int, until: float = 4.0) -> Iterator[Run]:
    listed = [{"train.optimizer.lr": 0.01 * (n + 1)} for n in range(points)] if isinstance(points, int) else points
    yield from (Run(number, point, until) for number, point in enumerate(listed))


def take(made: Packs, given: Iterator[Run], left: int = 0) -> list[int]:
    return [run.trial for run in made.take(lambda: next(given, None), left)]


@pytest.mark.parametrize(
    ("one", "slots", "parameters", "left", "most"),
    [
        (spec(), 1, 1000, 64, 8),
        (spec(trials=1000), 1, 1000, 1000, MOST),
        (spec(trials=1000), 2, 1000, 6, 3),
        (spec(trials=8), 1, 1000, 8, 1),
        (spec(), 1, MOST_PARAMETERS + 1, 64, 1),
        (spec(), 1, None, 64, 1),
        (spec(pack=4), 1, None, 64, 4),
        (spec(pack="off"), 1, 1000, 64, 1),
        (spec(compile=True), 1, 1000, 64, 1),
    ],
    ids=["auto", "many", "shared-by-slots", "few", "large-model", "unknown-model", "number", "off", "not-packable"],
)
def test_as_many_as_the_spec_and_its_trials_allow(
    one: JobSpec, slots: int, parameters: int | None, left: int, most: int
) -> None:
    assert len(take(packs(one, slots, parameters), runs(64), left)) == most


def test_trials_of_other_models_wait_for_a_pack_of_their_own() -> None:
    points = [{"model.params.hidden": [8] if number % 3 else [4, 4]} for number in range(6)]
    made, given = packs(spec(pack=6)), runs(points)
    assert take(made, given) == [0, 3]
    assert take(made, given) == [1, 2, 4, 5]
    assert take(made, given) == []


def test_what_one_slot_gathers_no_other_takes_while_the_searcher_is_asked() -> None:
    made, given = packs(spec(pack=4)), runs(6)
    taken: list[list[Run]] = []

    def ask() -> Run | None:
        taken.append(made.take(lambda: None, 0))
        return next(given, None)

    assert [run.trial for run in made.take(ask, 0)] == [0, 1, 2, 3]
    assert taken == [[]] * 4


def test_what_cannot_be_packed_is_trained_alone_from_then_on() -> None:
    made, given = packs(spec(pack=4)), runs(8)
    first = made.take(lambda: next(given, None), 8)
    made.unfit(first[0])
    assert [take(made, given) for _ in range(5)] == [[4], [5], [6], [7], []]


def test_trials_whose_pack_failed_are_apart() -> None:
    made = packs(spec(pack=4))
    for trial in (0, 1):
        made.apart(trial)
    given = runs(4)
    assert [take(made, given) for _ in range(3)] == [[0], [1], [2, 3]]
