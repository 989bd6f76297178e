"""The same training under Ray Train: ``python ray_train.py '{"options": {"steps": 30}, "trainings": 2}'``.

Prints, for every training, the Unix time at which it was submitted. With ``RAY_ADDRESS`` set (``ray job submit`` does)
it joins that cluster, otherwise ``ray.init`` starts one.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from typing import Any

import ray
import ray.train
import torch
import torch.nn.functional as F
from digits import Classifier, Options, batches, load, restore, save
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model


def train(config: dict[str, Any]) -> None:
    options = Options(**config)
    context = ray.train.get_context()
    torch.manual_seed(0)
    plain = Classifier()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.01)
    first = _restore(plain, optimizer)
    model = prepare_model(plain)
    stream = batches(load(options), options, context.get_world_rank(), context.get_world_size())
    for _ in range(first):
        next(stream)
    for step in range(first + 1, options.steps + 1):
        images, labels = next(stream)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if options.checkpoints and step % options.checkpoint_every == 0:
            _report(step, plain, optimizer, context.get_world_rank())


def _restore(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        return restore(folder, model, optimizer)


def _report(step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer, rank: int) -> None:
    """Every rank reports, rank 0 with the state; Ray Train copies it to the storage path."""
    with tempfile.TemporaryDirectory() as folder:
        if rank == 0:
            save(folder, step, model, optimizer)
        ray.train.report({"step": step}, checkpoint=Checkpoint.from_directory(folder) if rank == 0 else None)


def main(options: Options, trainings: int) -> None:
    arguments: dict[str, Any] = {}
    if "RAY_ADDRESS" not in os.environ:
        arguments |= {"num_cpus": 2, "_temp_dir": os.environ["TMPDIR"]}
        if os.environ.get("BENCHMARK_TUNED"):
            arguments |= {"include_dashboard": False, "log_to_driver": False}
    ray.init(**arguments)
    for index in range(trainings):
        print(f"submitted {time.time()!r}", flush=True)
        TorchTrainer(
            train,
            train_loop_config=asdict(options),
            scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(
                name=f"training-{os.getpid()}-{index}",
                storage_path=options.checkpoints or os.environ["TMPDIR"],
                failure_config=FailureConfig(max_failures=3),
            ),
        ).fit()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    main(Options(**given["options"]), given["trainings"])
