"""A job that died after its test samples were measured, on storage that does not show every worker the same files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import training_pieces as pieces
from epochal.tracking.recorder import MemoryRecorder
from epochal.training import ending
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.segment import RESUMED
from epochal.training.worker import Worker
from training_gang import TestGang


class Counting(pieces.Classification):
    seen = 0

    def loss(self, model: Any, batch: Any) -> Any:
        self.seen += not model.training
        return super().loss(model, batch)


def nothing(path: Path) -> Mapping[str, Any]:
    return {}


def measured(worker: Worker, folder: Path, blind: int | None) -> tuple[dict[str, float], int]:
    """The metrics, and how many batches were measured. The worker ``blind`` does not see what was measured before."""
    task = Counting()
    job = pieces.spec(epochs=1, resources__workers=worker.world_size)
    setup = pieces.setup(job, task=task, data=replace(pieces.data(validation=0), test=pieces.samples(9, seed=5)))
    with pytest.MonkeyPatch.context() as patch:
        if worker.rank == blind:
            patch.setattr(ending, "_measured", nothing)
        return fit(setup, worker, folder, MemoryRecorder(), NullControl(), RESUMED).metrics, task.seen


def test_all_workers_measure_again_or_none(gang: TestGang, tmp_path: Path) -> None:
    first = gang.run(2, measured, tmp_path, None)
    assert [seen for _, seen in first] == [2, 1]
    assert "test/loss" in first[0][0]
    assert first[0][0] == first[1][0]
    assert gang.run(2, measured, tmp_path, None) == [(metrics, 0) for metrics, _ in first]
    for blind in (0, 1):
        assert gang.run(2, measured, tmp_path, blind) == first
