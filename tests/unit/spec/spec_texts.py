"""Specs that the tests of the spec start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochal.errors import Problem, SpecError
from epochal.spec import LoadedSpec, load_text

SMALL = """\
version: 1
name: digits-cnn
model: {name: cnn}
data: {name: digits}
train: {epochs: 5}
"""

FULL = """\
version: 1
name: digits-cnn
experiment: digits
description: "Ünïcode, and a \\u263a"
tags: {team: vision, a.b: c}
model: {name: cnn, params: {channels: [32, 64]}}
data: {name: digits, params: {}, loader_workers: 2}
task: {name: classification}
train:
  epochs: 5
  global_batch_size: 64
  micro_batch_size: 16
  optimizer: {name: adamw, lr: 1e-3, weight_decay: 0.01}
  lr_schedule: {name: cosine, warmup: 0.05}
  precision: bf16
  clip_grad_norm: 1.0
  validate_every: 500steps
  early_stopping: {metric: val/loss, mode: min, patience: 3}
  freeze: ["features.*"]
objective: {metric: val/accuracy, mode: max}
resources: {workers: 4, cpus_per_worker: 0.5, memory_per_worker: 2GiB, strategy: fsdp}
checkpoint: {every: 10m, keep: {latest: 2, best: 1}}
retry: {infra: 3, oom: 1, user: 0}
limits: {max_duration: 1h30m, max_pending: 1h}
priority: 70
code: {dir: src, exclude: ["*.bin"]}
env: {OMP_NUM_THREADS: "1"}
secrets: [TOKEN]
sweep:
  search: {name: tpe, seed: 1}
  trial_scheduler: {name: asha, eta: 3, min: 1ep}
  trials: 8
  space:
    train.optimizer.lr: {dist: loguniform, low: 1e-5, high: 1e-1}
    model.params.channels: {choice: [[16, 32], [32, 64]]}
    train.global_batch_size: {dist: int, low: 16, high: 64, step: 16}
    train.lr_schedule.warmup: {dist: uniform, low: 0, high: 0.5}
    train.clip_grad_norm: {dist: lognormal, mean: 0, sigma: 1, when: {model.params.channels: [[16, 32]]}}
    train.seed: 3
  points:
    - {train.optimizer.lr: 1e-3, train.global_batch_size: 64}
"""


def load(text: str | bytes, *overrides: str) -> LoadedSpec:
    return load_text(text, Path("/jobs/job.yaml"), overrides, shown="job.yaml")


def problems(text: str | bytes, *overrides: str) -> list[Problem]:
    with pytest.raises(SpecError) as caught:
        load(text, *overrides)
    return list(caught.value.problems)


def problem(text: str | bytes, *overrides: str) -> Problem:
    """The one thing wrong."""
    (only,) = problems(text, *overrides)
    return only
