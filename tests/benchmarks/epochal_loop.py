"""Epochal's training loop alone: ``torchrun --nproc-per-node 2 epochal_loop.py '{"steps": 30}'``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist
from epochal_job import job_spec

from epochal.spec.job import JobSpec
from epochal.tracking.metric_spool import MetricSpool
from epochal.tracking.recorder import NullRecorder, Recorder
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.saver import Saver, Snapshot
from epochal.training.setup import prepare
from epochal.training.worker import Worker


def main(options: dict[str, Any]) -> None:
    dist.init_process_group("gloo")
    worker = Worker(dist.get_rank(), dist.get_world_size())
    folder = Path.cwd() / "job"
    recorder: Recorder = MetricSpool(folder, "rank-0") if worker.is_first else NullRecorder()
    if options.pop("waits", False):
        _wait_for_checkpoints()
    setup = prepare(JobSpec.model_validate(job_spec(**options)), Path.cwd())
    fit(setup, worker, folder, recorder, NullControl())
    recorder.close()
    dist.destroy_process_group()


def _wait_for_checkpoints() -> None:
    """Write each before the next step: for the price of that."""
    start = Saver.start

    def waited(saver: Saver, snapshot: Snapshot) -> None:
        start(saver, snapshot)
        saver.abandon()

    Saver.start = waited  # type: ignore[method-assign]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
