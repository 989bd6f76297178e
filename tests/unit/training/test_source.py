from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import pytest
import torch

import training_pieces as pieces
from epochal.catalog.stream import Cursor, Read
from epochal.errors import EpochalError, SpecError, TrainingError
from epochal.spec.job import JobSpec
from epochal.training.check import check
from epochal.training.lanes import LaneSource
from epochal.training.left_out import LeftOut
from epochal.training.parallel import Single
from epochal.training.source import source_of
from epochal.training.worker import Worker


@dataclass(frozen=True)
class Counting:
    """Lane ``l`` gives l * 1000, l * 1000 + 1, ...; ``bad`` ones cannot be read."""

    most_lanes: int = 5
    bad: Sequence[int] = ()

    def read(self, lane: int, lanes: int, seed: int, cursor: Cursor | None) -> Iterator[Read]:
        at = cursor["at"] if cursor else 0
        while True:
            number = lane * 1000 + at
            at += 1
            sample = {"input": torch.full((pieces.FEATURES,), float(number)), "target": torch.tensor(number % 3)}
            if number in self.bad:
                yield Read(None, {"at": at}, f"record {number} is bad")
            else:
                yield Read(sample, {"at": at})


def source(job: JobSpec, stream: Counting, left_out: LeftOut | None = None) -> LaneSource:
    setup = pieces.setup(job, data=replace(pieces.data(), stream=stream))
    found = source_of(setup, Single(Worker(), job.train), left_out or LeftOut())
    assert isinstance(found, LaneSource)
    return found


def taken(job: JobSpec, world_size: int, steps: range, states: list[Any], **stream: Any) -> tuple[list[list[int]], Any]:
    """The global batches of the steps, and the states of all workers after the last, as a checkpoint has them."""
    sources = [source(job, Counting(**stream), LeftOut(bool(stream), 100)) for _ in range(world_size)]
    reads = [one.read(Worker(rank, world_size), steps.start, 1000, states) for rank, one in enumerate(sources)]
    batches: list[list[int]] = []
    for _ in steps:
        loaded = [next(read) for read in reads]
        assert {one.global_size for one in loaded} == {8}
        assert [one.size for one in loaded] == [len(one.batch["input"]) for one in loaded]
        batches.append([int(value) for one in loaded for value in one.batch["input"][:, 0].tolist()])
    return batches, json.loads(json.dumps([one.state() for one in sources]))


JOB = pieces.spec(epochs=None, steps=10)


def test_lanes_give_the_same_places_of_each_batch_whatever_the_number_of_workers() -> None:
    alone, _ = taken(JOB, 1, range(4), [])
    assert alone[0] == [0, 1, 1000, 1001, 2000, 2001, 3000, 4000]
    assert alone[1] == [2, 3, 1002, 1003, 2002, 2003, 3001, 4001]
    for world_size in (2, 3, 5, 8, 11):
        assert taken(JOB, world_size, range(4), [])[0] == alone


@pytest.mark.parametrize("bad", [(), (3, 1000, 1002, 2004, 3001, 4002, 4003)], ids=["good", "bad"])
@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2), (2, 11), (4, 1)])
def test_it_goes_on_exactly_on_another_number_of_workers(before: int, after: int, bad: tuple[int, ...]) -> None:
    whole, _ = taken(JOB, 1, range(6), [], bad=bad)
    first, states = taken(JOB, before, range(4), [], bad=bad)
    rest, _ = taken(JOB, after, range(4, 6), states, bad=bad)
    assert first + rest == whole
    assert not {number for batch in whole for number in batch} & set(bad)


def test_a_bad_record_is_named_or_counted_up_to_the_limit() -> None:
    stream = Counting(bad=[2, 1000, 1003])
    with pytest.raises(EpochalError, match="record 1000 is bad"):
        list(source(JOB, stream).read(Worker(), 0, 3, []))
    left_out = LeftOut(True, 3)
    list(source(JOB, stream, left_out).read(Worker(), 0, 3, []))
    assert left_out.count == 3
    assert left_out.untold() == [f"left out: record {number} is bad" for number in (1000, 2, 1003)]
    assert left_out.untold() == []
    with pytest.raises(TrainingError, match=r"3 records .* data\.max_errors is 2; the last: record 1003 is bad"):
        list(source(JOB, stream, LeftOut(True, 2)).read(Worker(), 0, 3, []))


def test_lengths_in_epochs_are_refused_for_a_stream() -> None:
    data = replace(pieces.data(), stream=Counting())
    with pytest.raises(SpecError) as caught:
        check(pieces.spec(epochs=2), data, pieces.Classification())
    assert [problem.path for problem in caught.value.problems] == [
        "train.epochs", "train.validate_every", "checkpoint.every"]  # fmt: skip
    job = pieces.spec(epochs=None, steps=5, validate_every="2steps", checkpoint__every="5m")
    assert "a stream" in check(job, data, pieces.Classification()).notes[0]


def test_a_stream_whose_records_have_all_become_bad_ends_the_training() -> None:
    with pytest.raises(EpochalError, match=r"[\d,]+ records in a row cannot be used, the last: record \d+ is bad"):
        list(source(JOB, Gone(), LeftOut(True, 10)).read(Worker(), 0, 3, []))


class Gone(Counting):
    """Comes back to its first three records, which are bad."""

    def read(self, lane: int, lanes: int, seed: int, cursor: Cursor | None) -> Iterator[Read]:
        for at in cycle(range(3)):
            yield Read(None, {"at": at}, f"record {at} is bad")
