"""Transfer pays where there are few samples and few steps: what was learned of some digits helps with the others."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest

from epochal.spec.load import load_spec
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.control import NullControl
from epochal.training.fit import FitResult, fit
from epochal.training.setup import prepare
from epochal.training.worker import Worker
from job_table import JOBS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEEDS = range(5)


def trained(file: str, folder: Path, seed: int, *more: str) -> FitResult:
    seeds = (f"train.seed={seed}", f"data.params.seed={seed}")
    spec = load_spec(str(JOBS / file), (*seeds, *more)).spec
    return fit(prepare(spec, folder), Worker(), folder, MemoryRecorder(), NullControl())


def test_the_job_beats_training_from_scratch(tmp_path: Path) -> None:
    transferred, scratch = [], []
    for seed in SEEDS:
        base, job = tmp_path / f"base-{seed}", "cnn-digits-transfer.yaml"
        trained("cnn-digits-base.yaml", base, seed)
        result = trained(job, tmp_path / f"transfer-{seed}", seed, f"train.init_from={base}")
        transferred.append(result.metrics["val/accuracy"])
        fresh = ("train.init_from=null", "train.init_except=[]")
        # At three rates, of which the best counts: scratch may want another than the job's.
        alone = [
            trained(job, tmp_path / f"scratch-{seed}-{rate}", seed, *fresh, f"train.optimizer.lr={rate}")
            for rate in (2e-2, 3e-2, 4e-2)
        ]
        scratch.append([one.metrics["val/accuracy"] for one in alone])
    best_of_scratch = max(mean(values) for values in zip(*scratch, strict=True))
    print(f"transfer {mean(transferred):.3f} {transferred}; scratch {best_of_scratch:.3f} {scratch}")
    assert mean(transferred) > best_of_scratch + 0.01
