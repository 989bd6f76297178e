"""Inputs of a controller survive JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from epochal.errors import ConflictError
from epochal.sweeps.inputs import from_json, to_json
from epochal.sweeps.trials import (
    Added,
    Asked,
    Cancelled,
    Extended,
    Failed,
    Input,
    Interrupted,
    Reached,
    Repeated,
    Run,
)

INPUTS: list[Input] = [
    Asked(),
    Asked(3),
    Asked(None, 4, {"train.optimizer.lr": 0.1}),
    Reached(1, 9.0, 0.25, True, {"val/loss": 0.5, "val/r2": math.inf}),
    Failed(2, "OUT_OF_MEMORY", "no memory\nis left"),
    Interrupted(),
    Interrupted((1, 4)),
    Interrupted(()),
    Extended(8),
    Added(({"train.optimizer.lr": 0.1, "model.params.channels": [16, 32]}, {})),
    Repeated(3, 2),
    Cancelled(4),
]


def _through(told: Input) -> Input:
    return from_json(json.loads(json.dumps(to_json(told), allow_nan=False)))


@pytest.mark.parametrize("told", INPUTS, ids=range(len(INPUTS)))
def test_an_input_is_the_same_after_json(told: Input) -> None:
    assert _through(told) == told


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_nan_and_infinity_are_the_same_after_json(value: float) -> None:
    told = _through(Reached(0, 1.0, value, metrics={"val/loss": value}))
    assert isinstance(told, Reached)
    assert str(told.value) == str(told.metrics["val/loss"]) == str(value)


def test_the_point_of_the_answer_is_kept_with_the_question() -> None:
    answer = [Run(4, {"train.optimizer.lr": 0.1}, 9.0)]
    assert from_json(to_json(Asked(2), answer)) == Asked(2, 4, {"train.optimizer.lr": 0.1})
    assert from_json(to_json(Asked(2), [])) == Asked(2)


def test_keys_of_another_version_are_ignored() -> None:
    assert from_json({**to_json(Extended(8)), "who": "alice"}) == Extended(8)


UNREADABLE: list[dict[str, Any]] = [
    {},
    {"kind": "merged"},
    {"kind": "extended"},
    {"kind": "extended", "trials": "many"},
    {"kind": "added", "points": 3},
    {"kind": "reached", "trial": 1, "length": 1.0, "value": 0.5, "metrics": 3},
]


@pytest.mark.parametrize("document", UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_cannot_be_read_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ConflictError, match="this version cannot read the input"):
        from_json(document)
