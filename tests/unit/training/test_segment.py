"""A training in segments, as the trials of a sweep are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import training_pieces as pieces
from epochal.spec.job import JobSpec
from epochal.tracking.recorder import MemoryRecorder
from epochal.training import checkpoint
from epochal.training.control import NullControl
from epochal.training.fit import FitResult, fit
from epochal.training.segment import Segment
from epochal.training.worker import Worker
from epochal.units import Interval

OBJECTIVE = {"metric": "val/loss", "mode": "min"}
WEIGHTS = Path("model", "weights.safetensors")


def spec(**train: Any) -> JobSpec:
    job = pieces.spec(epochs=4, **train)
    return JobSpec.model_validate({**job.model_dump(mode="json", exclude_unset=True), "objective": OBJECTIVE})


def train(job: JobSpec, folder: Path, segment: Segment, recorder: MemoryRecorder) -> FitResult:
    return fit(pieces.setup(job), Worker(), folder, recorder, NullControl(), segment)


@pytest.mark.parametrize("unit", ["epochs", "steps"])
def test_segments_give_the_curve_of_the_whole(tmp_path: Path, unit: Any) -> None:
    job, whole, parts = spec(), MemoryRecorder(), MemoryRecorder()
    train(job, tmp_path / "whole", Segment(), whole)
    ends = []
    for until in (1, 2.5, 4) if unit == "epochs" else (4, 10, 100):
        result = train(job, tmp_path / "parts", Segment(resume=True, until=Interval(until, unit)), parts)
        ends.append((result.step, result.state, result.total_steps))
    assert ends == [(4, "reached", 16), (10, "reached", 16), (16, "completed", 16)]
    for name in ("train/loss", "train/lr"):
        assert parts.history[name] == whole.history[name]
    assert set(whole.history["val/loss"]) < set(parts.history["val/loss"])  # each end is validated too
    assert (tmp_path / "parts" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_only_a_segment_that_leads_to_the_end_writes_the_weights(tmp_path: Path) -> None:
    result = train(spec(), tmp_path, Segment(until=Interval(1, "epochs")), MemoryRecorder())
    assert result.weights is None
    assert not (tmp_path / WEIGHTS).exists()


def test_an_end_that_nobody_goes_on_from_is_not_saved(tmp_path: Path) -> None:
    job = JobSpec.model_validate(
        {**spec().model_dump(exclude_unset=True), "checkpoint": {"every": "1h", "keep": {"best": 0}}}
    )
    train(job, tmp_path, Segment(saved=False), MemoryRecorder())
    assert checkpoint.steps(tmp_path / checkpoint.FOLDER) == []


@pytest.mark.parametrize(("beats", "written"), [(1e9, True), (-1e9, False), (None, True)])
def test_weights_are_written_where_they_are_the_best(tmp_path: Path, beats: float | None, written: bool) -> None:
    result = train(spec(), tmp_path, Segment(beats=beats), MemoryRecorder())
    assert result.state == "completed"
    assert (tmp_path / WEIGHTS).exists() is written is (result.weights is not None)


class StoppedAtOnce(NullControl):
    def stop_requested(self) -> bool:
        return True


def test_an_end_that_was_saved_and_not_validated_is_validated_with_the_loss_of_its_last_step(tmp_path: Path) -> None:
    job, segment = spec(validate_every="100steps"), Segment(resume=True, until=Interval(1, "steps"))
    stopped = fit(pieces.setup(job), Worker(), tmp_path / "stopped", MemoryRecorder(), StoppedAtOnce(), segment)
    assert (stopped.state, stopped.step, stopped.metrics) == ("stopped", 1, {})
    again = train(job, tmp_path / "stopped", segment, MemoryRecorder())
    assert again == train(job, tmp_path / "unbroken", segment, MemoryRecorder())
