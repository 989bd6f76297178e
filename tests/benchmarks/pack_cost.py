"""Trains trials that differ in learning rate and seed: ``python pack_cost.py '{"way": "packed", "trials": 8, ...}'``.

``way``: packed, or one after another in this process. Prints the seconds it took, without imports, data and models.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from epochal.spec.job import JobSpec
from epochal.tracking.metric_spool import MetricSpool
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.pack import Member, fit_pack
from epochal.training.segment import Segment
from epochal.training.setup import Setup, prepare
from epochal.training.worker import Worker


def main(way: str, trials: int, epochs: int, validate_every: str, device: str) -> None:
    torch.set_num_threads(1)
    worker = Worker(device=torch.device(device))
    members = [_member(way, number, epochs, validate_every) for number in range(trials)]
    _train(way, [_member("first", number, 1, "1ep") for number in range(2)], worker)  # what torch does once
    began = time.perf_counter()
    _train(way, members, worker)
    print(json.dumps(time.perf_counter() - began))


def _train(way: str, members: list[Member], worker: Worker) -> None:
    if way == "packed":
        found = fit_pack(members, worker)
        if found.why_alone:
            raise RuntimeError(found.why_alone)
    else:
        for member in members:
            fit(member.setup, worker, member.folder, member.recorder, member.control, member.segment)
    for member in members:
        member.recorder.close()


def _member(kind: str, number: int, epochs: int, validate_every: str) -> Member:
    folder = Path.cwd() / f"{kind}-{number}"
    setup = _setup(number, epochs, validate_every)
    return Member(setup, folder, MetricSpool(folder, "rank-0"), NullControl(), Segment(saved=False))


def _setup(number: int, epochs: int, validate_every: str) -> Setup:
    spec: dict[str, Any] = {
        "version": 1,
        "name": "packs",
        "model": {"name": "mlp"},
        "data": {"name": "digits"},
        "train": {
            "epochs": epochs,
            "seed": number,
            "optimizer": {"name": "adamw", "lr": 1e-3 * (1 + number)},
            "lr_schedule": {"name": "cosine"},
            "clip_grad_norm": 1.0,
            "validate_every": validate_every,
        },
        "checkpoint": {"every": "1h"},
    }
    return prepare(JobSpec.model_validate(spec), Path.cwd())


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
