"""A token file of 4 GiB is trained on by workers that have less than 1 GB of memory each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import training_pieces as pieces
from epochal.spec.job import JobSpec
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.setup import prepare
from epochal.training.worker import Worker
from training_gang import TestGang

BYTES = 4 << 30
MOST = 1_000_000_000


def trained(worker: Worker, job: JobSpec, folder: Path) -> tuple[int, list[float]]:
    """The most memory that this process had from here on, in bytes, and the losses."""
    Path("/proc/self/clear_refs").write_text("5")
    recorder = MemoryRecorder()
    fit(prepare(job, folder), worker, folder / "job", recorder, NullControl())
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024, [loss for _, loss in recorder.history.get("train/loss", [])]


@pytest.mark.slow
def test_a_file_of_4_gib_takes_less_than_1_gb_a_worker(gang: TestGang, tmp_path: Path) -> None:
    file = tmp_path / "tokens.bin"
    with file.open("wb") as stream:
        stream.truncate(BYTES)
    tokens = np.memmap(file, "<u2", "r+")
    tokens[:: 1 << 20] = 40  # a page each; the rest stays a hole
    tokens.flush()
    job = pieces.spec(epochs=None, steps=40, global_batch_size=32, validate_every="100steps", resources__workers=2)
    named = {"data": {"name": "tokens", "params": {"path": "tokens.bin", "length": 64, "validation": 1e-6}},
             "model": {"name": "gpt", "params": {"size": "nano"}}}  # fmt: skip
    job = JobSpec.model_validate({**job.model_dump(mode="json", exclude_unset=True), **named})
    memory, losses = zip(*gang.run(2, trained, job, tmp_path), strict=True)
    assert max(memory) < MOST
    assert losses[0][-1] < losses[0][0] / 2
