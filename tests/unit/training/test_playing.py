"""Batches from environments: on any number of workers, and from any checkpoint, the same."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest
import torch

import played_pieces
import training_pieces as pieces
from epochal.catalog.tasks import TASKS
from epochal.errors import EpochalError, SpecError
from epochal.training.check import check
from epochal.training.left_out import LeftOut
from epochal.training.parallel import Single
from epochal.training.playing import PlayedSource
from epochal.training.source import source_of
from epochal.training.worker import Worker

JOB = pieces.spec(
    epochs=None, steps=40, global_batch_size=24, validate_every="20steps", checkpoint__every="10steps",
)  # fmt: skip


def source(model: str, environment: played_pieces.Walks = played_pieces.Walks()) -> PlayedSource:  # noqa: B008
    setup = played_pieces.setup(JOB, model, environment)
    strategy = Single(Worker(), JOB.train)
    strategy.wrap(setup.model)
    found = source_of(setup, strategy, LeftOut())
    assert isinstance(found, PlayedSource)
    return found


def taken(model: str, world_size: int, steps: range, states: list[Any]) -> tuple[list[Any], list[Any]]:
    """The global batches of the steps, and the states of all workers after the last, as a checkpoint has them."""
    sources = [source(model) for _ in range(world_size)]
    reads = [one.read(Worker(rank, world_size), steps.start, 1000, states) for rank, one in enumerate(sources)]
    batches = []
    for _ in steps:
        loaded = [next(read) for read in reads]
        assert {one.global_size for one in loaded} == {24}
        names = loaded[0].batch
        batches.append({name: torch.cat([one.batch[name] for one in loaded]).tolist() for name in names})
    return batches, json.loads(json.dumps([one.state() for one in sources]))


@pytest.mark.parametrize("model", ["dqn", "actor-critic"])
def test_batches_are_the_same_on_any_number_of_workers_and_after_going_on_with_another(model: str) -> None:
    whole, _ = taken(model, 1, range(36), [])
    for before, after in ((2, 3), (3, 1), (6, 6)):
        first, states = taken(model, before, range(21), [])
        rest, _ = taken(model, after, range(21, 36), states)
        assert first + rest == whole


def test_as_much_is_kept_as_is_remembered() -> None:
    played = source("dqn")
    for _ in islice(played.read(Worker(), 0, 200, []), 200):
        lanes = played.state()["lanes"].values()
        kept = [sum(map(len, lane["episodes"])) for lane in lanes]
        assert all(min(10, lane["steps"]) <= count <= 10 + 2 * 12 for lane, count in zip(lanes, kept, strict=True))
    assert min(lane["steps"] for lane in lanes) == 5 + 200  # at random, and one for four that are learned from


def test_an_environment_with_numbers_of_its_own_is_not_gone_on_with() -> None:
    played = source("actor-critic", played_pieces.Walks(noise=1.0))
    next(played.read(Worker(), 0, 9, []))
    with pytest.raises(EpochalError, match=r"lane 0 .* came to something else than before"):
        next(played.read(Worker(), 1, 9, [played.state()]))


def test_what_does_not_go_with_environments_is_refused_at_once() -> None:
    data, task = played_pieces.data(), played_pieces.setup(JOB, "dqn").task
    odd = pieces.spec(
        epochs=None, steps=40, global_batch_size=20, validate_every="20steps", checkpoint__every="10steps",
        resources__workers={"min": 3, "max": 900}, resources__strategy="fsdp", data__loader_workers=1,
        data__name="mine", compile=True,
    )  # fmt: skip
    with pytest.raises(SpecError) as caught:
        check(odd, data, task)
    assert sorted(problem.path for problem in caught.value.problems) == [
        "data.loader_workers", "resources.strategy", "resources.workers", "train.compile", "train.global_batch_size",
    ]  # fmt: skip
    assert "evenly among 4, 5, 7 and 893 more workers" in str(caught.value)
    entry = TASKS.get("classification")
    passive = entry.build(entry.params(), data.info)
    with pytest.raises(SpecError, match="this task does not act"):
        check(JOB, data, passive)
    check(JOB, data, task)
