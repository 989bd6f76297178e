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
from epochal.training.setup import prepare
from epochal.training.worker import Worker


def main(options: dict[str, Any]) -> None:
    dist.init_process_group("gloo")
    worker = Worker(dist.get_rank(), dist.get_world_size())
    folder = Path.cwd() / "job"
    recorder: Recorder = MetricSpool(folder, "rank-0") if worker.is_first else NullRecorder()
    setup = prepare(JobSpec.model_validate(job_spec(**options)), Path.cwd())
    fit(setup, worker, folder, recorder, NullControl())
    recorder.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
