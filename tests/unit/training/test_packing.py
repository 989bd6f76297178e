"""Which trials can train together, as far as their specs tell."""

from __future__ import annotations

from typing import Any

import pytest

import training_pieces as pieces
from epochal.catalog.losses import LOSSES
from epochal.catalog.optimizers import OPTIMIZERS
from epochal.spec.job import JobSpec
from epochal.training import packing
from epochal.training.packing import ELEMENTWISE, key_of, packable


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"precision": "bf16"}, None),
        ({"precision": "fp16"}, "fp16"),
        ({"compile": True}, "train.compile"),
        ({"resources__workers": 2}, "several workers"),
        ({"optimizer": {"name": "adafactor"}}, "adafactor"),
        ({"varying_buffers": ["bank"]}, "varying_buffers"),
        ({"find_unused_parameters": True}, "find_unused_parameters"),
    ],
    ids=["plain", "bf16", "fp16", "compile", "workers", "adafactor", "buffers", "unused"],
)
def test_a_spec_says_why_its_trials_train_alone(changes: dict[str, Any], why: str | None) -> None:
    found = packable(pieces.spec(**changes))
    assert found is None if why is None else why in (found or "")


@pytest.mark.parametrize(
    "changes",
    [
        {"global_batch_size": 4},
        {"micro_batch_size": 2},
        {"precision": "bf16"},
        {"freeze": ["0.*"]},
        {"optimizer": {"name": "sgd"}},
        {"validate_every": "2steps"},
        {"checkpoint__every": "1ep"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_trials_that_differ_in_more_than_scalars_have_other_keys(changes: dict[str, Any]) -> None:
    assert key_of(pieces.spec(**changes)) != key_of(pieces.spec())


def test_seeds_matter_to_processes_that_read_the_data() -> None:
    jobs = [
        JobSpec.model_validate(
            {**pieces.spec(seed=seed).model_dump(exclude_unset=True), "data": {"name": "mine", "loader_workers": 1}}
        )
        for seed in range(2)
    ]
    assert key_of(jobs[0]) != key_of(jobs[1])


def test_the_tables_of_what_may_differ_name_what_there_is() -> None:
    scalars = {name for loss in LOSSES for name in LOSSES.get(loss).scalars}
    assert scalars == set(packing._SCALARS)
    assert set(OPTIMIZERS) - ELEMENTWISE == {"adafactor", "lbfgs", "muon"}
