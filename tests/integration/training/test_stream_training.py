"""A training on a stream, interrupted: it goes on exactly, on another number of workers, and with loader processes."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import training_pieces as pieces
from epochal.catalog.build import load_data
from epochal.spec.job import JobSpec
from epochal.spec.section import Component
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.control import NullControl, Phase, Report
from epochal.training.fit import fit
from epochal.training.segment import RESUMED
from epochal.training.worker import Worker
from training_gang import TestGang

BAD = 2
SHARDS = 3


class BrokenOffError(Exception):
    pass


class Killed(NullControl):
    def __init__(self, after: int | None) -> None:
        self.after = after
        self.reports: list[Report] = []

    def tick(self, phase: Phase, step: int) -> None:
        if self.after is not None and phase == "train" and step > self.after:
            raise BrokenOffError

    def report(self, report: Report) -> None:
        self.reports.append(report)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(SHARDS):
        with tarfile.open(tmp_path / f"train-{number}.tar", "w") as archive:
            for record in range(7 + number):
                row = rng.normal(size=pieces.FEATURES).astype("f4")
                array = io.BytesIO()
                np.save(array, row)
                content = {"npy": array.getvalue(), "cls": str(int(row.sum() > 0)).encode()}
                if number == 1 and record < BAD:
                    content["npy"] = b"damaged"
                for suffix, data in content.items():
                    info = tarfile.TarInfo(f"{record:04}.{suffix}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    return tmp_path


def trained(
    worker: Worker, job: JobSpec, shards: Path, folder: Path, after: int | None
) -> tuple[dict[int, float], list[Report]]:
    component = Component(name="webdataset", params={"path": "train-*.tar", "input": "npy", "classes": pieces.CLASSES})
    control, recorder = Killed(after), MemoryRecorder()
    setup = pieces.setup(job, data=load_data(component, shards))
    with contextlib.suppress(BrokenOffError):
        fit(setup, worker, folder, recorder, control, RESUMED)
    return dict(recorder.history.get("train/loss", [])), control.reports


def spec(workers: int, loader_workers: int, **changes: Any) -> JobSpec:
    job = pieces.spec(epochs=None, steps=12, validate_every="100steps", checkpoint__every="5steps",
                      resources__workers=workers)  # fmt: skip
    return job.model_copy(update={"data": job.data.model_copy(update={
        "loader_workers": loader_workers, "on_error": "skip", **changes})})  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "loaders"), [(2, 2, 0), pytest.param(2, 3, 0, marks=pytest.mark.slow), (2, 1, 2)]
)
def test_killed_it_goes_on_exactly(
    gang: TestGang, tmp_path: Path, shards: Path, before: int, after: int, loaders: int
) -> None:
    whole = gang.run(before, trained, spec(before, loaders), shards, tmp_path / "whole", None)[0][0]
    killed = gang.run(before, trained, spec(before, loaders), shards, tmp_path / "broken", 8)[0][0]
    resumed = gang.run(after, trained, spec(after, 0), shards, tmp_path / "broken", None)[0][0]
    assert min(resumed) == 6
    assert sorted(whole) == list(range(1, 13))
    joined = killed | resumed
    # Sums over another number of workers differ in their last bits; with other samples nothing would agree.
    for step, loss in whole.items():
        assert joined[step] == (loss if before == after else pytest.approx(loss, rel=1e-5)), step


def test_bad_records_are_named_by_who_read_them_and_too_many_fail_all(
    gang: TestGang, tmp_path: Path, shards: Path
) -> None:
    runs = gang.run(2, trained, spec(2, 1), shards, tmp_path / "job", None)
    notes = {report.note for _, reports in runs for report in reports if hasattr(report, "note")}
    assert len([note for note in notes if note.startswith("left out:") and "train-1.tar: record" in note]) == BAD
    with pytest.raises(Exception, match=r"[23] records of the data cannot be used, and data\.max_errors is 1"):
        gang.run(2, trained, spec(2, 0, max_errors=1), shards, tmp_path / "strict", None)
