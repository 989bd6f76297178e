"""A CNN that has learned half of the digits learns the others from few samples better than one that has not."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from epochal.spec import load_spec
from epochal.spec.job import JobSpec
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.setup import prepare
from epochal.training.worker import Worker

JOBS = Path(__file__).parents[3] / "jobs"


def accuracy(name: str, folder: Path, seed: int, **train: Any) -> float:
    spec = load_spec(JOBS / name).spec.model_dump(mode="json")
    spec["train"] |= {"seed": seed, "validate_every": "1000ep", **train}
    spec["checkpoint"] = {"every": "1h", "keep": {"best": 0}}
    spec["data"]["params"]["seed"] = seed
    spec["resources"]["workers"] = 1
    setup = prepare(JobSpec.model_validate(spec), folder)
    return fit(setup, Worker(), folder, MemoryRecorder(), NullControl()).metrics["val/accuracy"]


@pytest.mark.slow
def test_transfer_beats_training_from_scratch(tmp_path: Path) -> None:
    scratch, transferred = [], []
    for seed in range(5):
        base = tmp_path / f"base-{seed}"
        accuracy("cnn-digits-base.yaml", base, seed)
        scratch.append(accuracy("cnn-digits-transfer.yaml", tmp_path / f"scratch-{seed}", seed, init_from=None))
        transferred.append(
            accuracy("cnn-digits-transfer.yaml", tmp_path / f"transferred-{seed}", seed, init_from=str(base))
        )
    print(f"from scratch {scratch}, mean {mean(scratch):.4f}; transferred {transferred}, mean {mean(transferred):.4f}")
    assert mean(transferred) > mean(scratch)
