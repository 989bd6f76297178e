"""What a training leaves is the same whatever the number of workers and the strategy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

import training_pieces as pieces
from epochal.spec.job import JobSpec
from epochal.tracking.recorder import NullRecorder
from epochal.training import sharding, weights
from epochal.training.control import NullControl
from epochal.training.fit import FitResult, fit
from epochal.training.segment import RESUMED
from epochal.training.worker import Worker
from training_gang import TestGang


def fitted(worker: Worker, job: JobSpec, folder: Path) -> FitResult:
    sharding.BLOCK_PARAMETERS = 100
    data = replace(pieces.data(), test=pieces.samples(9, seed=5))
    return fit(pieces.setup(job, data=data), worker, folder, NullRecorder(), NullControl(), RESUMED)


def spec(workers: int, strategy: str, **train: Any) -> JobSpec:
    """The first of three epochs is the best."""
    made = pieces.spec(epochs=3, resources__workers=workers, resources__strategy=strategy, **train)
    stored = made.model_dump(mode="json", exclude_unset=True)
    return JobSpec.model_validate({**stored, "objective": {"metric": "val/loss", "mode": "max"}})


@pytest.mark.parametrize("train", [{"export": "best"}, {"average": {"decay": 0.8}}], ids=["best", "ema"])
@pytest.mark.parametrize("strategy", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_weights_and_test_metrics_are_those_of_one_worker(
    gang: TestGang, tmp_path: Path, strategy: str, train: dict[str, Any]
) -> None:
    alone = fitted(Worker(), spec(1, "ddp", **train), tmp_path / "alone")
    first, *others = gang.run(2, fitted, spec(2, strategy, **train), tmp_path / "two")
    assert all(other == first for other in others)
    assert first.best is not None
    assert first.best[1] == 4
    assert first.metrics == pytest.approx(alone.metrics, rel=1e-5)
    assert "test/loss" in first.metrics
    for file in (weights.FILE, weights.LAST) if train.get("export") else (weights.FILE, weights.LAST, weights.BEST):
        assert_close(load_file(tmp_path / "two" / file), load_file(tmp_path / "alone" / file), rtol=1e-4, atol=1e-5)
    # Of all tests this one alone validates means and saves nothing before the next step: see ``Strategy.reshard``.
    again = gang.run(2, fitted, spec(2, strategy, **train), tmp_path / "two")
    assert [one.metrics for one in again] == [first.metrics, first.metrics]
