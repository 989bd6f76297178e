"""A small environment, and what learns to act in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from epochal.catalog.architectures import ARCHITECTURES
from epochal.catalog.data import DataInfo, Field, LoadedData, SampleSplit
from epochal.catalog.environment import Env, Sample, batch_of, experience
from epochal.catalog.tasks import TASKS
from epochal.spec.job import JobSpec
from epochal.training.setup import Setup


class Walk:
    """From a place on a line, drawn, to its right end, which brings 1; after ``most`` steps it is over."""

    length, most = 5, 12

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise
        self.at = self.steps = 0

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        self.at, self.steps = int(np.random.default_rng(seed).integers(0, self.length - 1)), 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at, self.steps = max(0, self.at + (1 if action else -1)), self.steps + 1
        there = self.at == self.length - 1
        return self._seen(), float(there), there, self.steps == self.most, {}

    def _seen(self) -> Any:
        place = np.zeros(6)
        place[self.at], place[5] = 1, self.noise * np.random.default_rng().random()
        return place

    def close(self) -> None:
        return


@dataclass(frozen=True)
class Walks:
    lanes: int = 6
    actions: int = 2
    noise: float = 0.0

    def make(self) -> Env:
        return Walk(self.noise)


def info(environment: Walks = Walks()) -> DataInfo:
    return experience(Field((6,)), environment)


def _begun(index: int) -> dict[str, torch.Tensor]:
    first = torch.eye(6)[index % 4]
    return {name: one[0] for name, one in batch_of([Sample(first, 0, 0.0, 0.0, first, index)]).items()}


def data(environment: Walks = Walks()) -> LoadedData:
    return LoadedData(SampleSplit(4, _begun), SampleSplit(8, _begun), info(environment), "0", "made up")


def q_network() -> nn.Module:
    entry = ARCHITECTURES.get("dqn")
    return entry.build(entry.params(hidden=[16]), info())


def actor_critic() -> nn.Module:
    entry = ARCHITECTURES.get("actor-critic")
    return entry.build(entry.params(hidden=[16]), info())


def _adam(parameters: Any) -> Optimizer:
    return torch.optim.Adam(parameters.values(), lr=0.01)


def setup(job: JobSpec, model: str, environment: Walks = Walks()) -> Setup:
    entry = TASKS.get("reinforcement-learning")
    q_learning = {"memory": 60, "random_steps": 30, "reuse": 4, "explore_steps": 20, "target_every": 5}
    params = entry.params.model_validate({"q_learning": q_learning} if model == "dqn" else {})
    torch.manual_seed(job.train.seed)
    made = q_network() if model == "dqn" else actor_critic()
    found = data(environment)
    return Setup(job, made, entry.build(params, found.info), found, _adam, lambda step, total, seen=(): 1.0)
