"""Samples that cannot be read, of a map-style dataset: they end the training, or others take their places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import training_pieces as pieces
from epochal.catalog.build import load_data
from epochal.catalog.data import Batch, LoadedData, SampleSplit
from epochal.errors import EpochalError, TrainingError
from epochal.spec.job import JobSpec
from epochal.spec.section import Component
from epochal.tracking.recorder import MemoryRecorder
from epochal.training import checkpoint
from epochal.training.control import Noted, NullControl, Report
from epochal.training.fetching import Fetch, some_of
from epochal.training.fit import FitResult, fit
from epochal.training.segment import RESUMED
from epochal.training.worker import Worker

SIZE, BAD = 10, (3, 4, 9)
GOOD = pieces.samples(SIZE).tensors


def read(index: int) -> Batch:
    if index == 4:
        return {"input": torch.zeros(2), "target": torch.tensor(0)}
    if index in BAD:
        raise OSError(f"no file {index}")
    return {name: tensor[index] for name, tensor in GOOD.items()}


SPLIT = SampleSplit(SIZE, read)
DATA = replace(pieces.data(), train=SPLIT, validation=SampleSplit(5, read))


class Told(NullControl):
    def __init__(self) -> None:
        self.reports: list[Report] = []

    def report(self, report: Report) -> None:
        self.reports.append(report)


def spec(most: int, **train: Any) -> JobSpec:
    job = pieces.spec(**train)
    return job.model_copy(update={"data": job.data.model_copy(update={"on_error": "skip", "max_errors": most})})


def trained(job: JobSpec, folder: Path, data: LoadedData = DATA) -> tuple[FitResult, list[str], MemoryRecorder]:
    control, recorder = Told(), MemoryRecorder()
    result = fit(pieces.setup(job, data=data), Worker(), folder, recorder, control, RESUMED)
    return result, [report.note for report in control.reports if isinstance(report, Noted)], recorder


@pytest.mark.parametrize(("tries", "numbers"), [(1, [2, 5]), (5, [2, 5, 5, 5, 0])])
def test_the_next_sample_takes_its_place_or_none(tries: int, numbers: list[int]) -> None:
    batch, size, problems = Fetch(SPLIT, DATA.info.fields, tries)([2, 3, 4, 5, 9], 5)
    assert torch.equal(batch["input"], GOOD["input"][numbers])
    assert size == len(numbers)
    assert "sample 4: the input has the shape (2,), expected the shape (6,)" in problems
    assert {problem.split()[1].strip(":") for problem in problems} == {"3", "4", "9"}


def test_where_all_are_bad_a_validation_batch_is_empty_and_has_its_shapes() -> None:
    batch, size, problems = Fetch(SPLIT, DATA.info.fields, 1)([3, 4], 2)
    assert batch["input"].shape == (0, pieces.FEATURES)
    assert (size, len(problems)) == (0, 2)


def test_a_sample_of_another_shape_is_left_out_where_it_is_a_batch_by_itself_too() -> None:
    """As the share of one of many workers may be."""
    fetched = Fetch(SPLIT, pieces.data().info.fields, tries=1)([4], 1)
    assert (fetched.size, fetched.batch["input"].shape) == (0, (0, pieces.FEATURES))
    assert fetched.problems == ["sample 4: the input has the shape (2,), expected the shape (6,)"]
    assert Fetch(SPLIT, pieces.data().info.fields, tries=0)([4], 1).size == 1  # whoever computes with it tells


def test_what_is_looked_at_outside_of_a_training_can_be_read() -> None:
    assert torch.equal(some_of(SPLIT, [3, 9], DATA, spec(5))["input"], GOOD["input"][[5, 0]])
    with pytest.raises(EpochalError, match=r"sample \d cannot be read"):
        some_of(SPLIT, [3, 9], DATA, pieces.spec())


def test_a_training_names_each_once_and_validates_on_the_rest(tmp_path: Path) -> None:
    result, notes, recorder = trained(spec(3, epochs=3), tmp_path)
    assert result.state == "completed"
    assert len([note for note in notes if note.startswith("left out: sample")]) == len(BAD)
    assert len(recorder.history["train/loss"]) == 6
    rest = replace(DATA, validation=pieces.TensorSplit({name: tensor[[0, 1, 2]] for name, tensor in GOOD.items()}))
    assert recorder.history["val/loss"] == trained(spec(3, epochs=3), tmp_path / "again", rest)[2].history["val/loss"]


def test_too_many_end_it_and_by_default_one_does(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"3 records of the data cannot be used, and data\.max_errors is 2"):
        trained(spec(2), tmp_path)
    with pytest.raises(EpochalError, match=r"sample \d cannot be read"):
        trained(pieces.spec(), tmp_path)


def test_one_that_was_told_of_is_not_told_again_after_a_resume(tmp_path: Path) -> None:
    trained(spec(3, epochs=2, checkpoint__every="1ep"), tmp_path)
    assert checkpoint.steps(tmp_path / checkpoint.FOLDER)
    _, notes, recorder = trained(spec(3, epochs=4, checkpoint__every="1ep"), tmp_path)
    assert len(recorder.history["train/loss"]) == 4
    assert notes == []


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(4):
            Image.new("RGB", (8, 8), (number * 60, 0, 0)).save(tmp_path / label / f"{number}.png")
    (tmp_path / "dog" / "2.png").write_bytes(b"no picture")
    data = load_data(Component(name="image-folder", params={"path": ".", "size": [2, 2], "validation": 0}), tmp_path)
    batch, size, (problem,) = Fetch(data.train, data.info.fields, 5)(range(8), 8)
    assert size == 8
    assert str(tmp_path / "dog" / "2.png") in problem
    assert batch["target"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
