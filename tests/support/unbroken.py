"""The loss curve of a job that nobody interrupts, by processes of their own that know neither Ray nor an agent."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from agent_jobs import SLOW_CODE, Curve
from epochal.spec.job import JobSpec
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.setup import prepare
from epochal.training.worker import Worker
from training_gang import TestGang


def unbroken_curve(folder: Path, spec: JobSpec) -> Curve:
    """Every ``(step, loss)`` of the training, at full speed; ``folder`` is where it leaves its state."""
    workers = spec.resources.max_workers
    with closing(TestGang(workers)) as gang:
        return gang.run(workers, _losses, spec, folder)[0]


def _losses(worker: Worker, spec: JobSpec, folder: Path) -> Curve:
    sys.path.insert(0, str(SLOW_CODE))  # slow only where the job's variables say so, which are not set here
    recorder = MemoryRecorder()
    fit(prepare(spec, folder), worker, folder, recorder, NullControl())
    return recorder.history.get("train/loss", [])
