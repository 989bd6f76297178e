"""Sweeps for tests: a spec, a searcher that needs nothing, and the controller of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from epochal.spec.job import JobSpec
from epochal.sweeps.check import trial_scheduler_of
from epochal.sweeps.controller import Controller
from epochal.sweeps.trials import Point, Trial

LR = "train.optimizer.lr"


@dataclass(frozen=True)
class Draws:
    """Learning rates between 0 and 1, as many as there are ``points``."""

    points: int = 1_000_000
    seed: int = 0

    def suggest(self, number: int, history: Sequence[Trial]) -> Point | None:
        return {LR: Random(f"{self.seed} {number}").random()} if number < self.points else None


def sweep_spec(full: int = 9, mode: str = "max", scheduler: dict[str, Any] | None = None, **sweep: Any) -> JobSpec:
    """A sweep over the learning rate; ``full`` are epochs, ``scheduler`` the trial scheduler with its parameters."""
    document = {
        "version": 1,
        "name": "sweep",
        "model": {"name": "mlp"},
        "data": {"name": "digits"},
        "train": {"epochs": full},
        "objective": {"metric": "val/loss", "mode": mode},
        "sweep": {
            "space": {LR: {"dist": "uniform", "low": 0.0001, "high": 1.0}},
            "trial_scheduler": scheduler or {"name": "none"},
            **sweep,
        },
    }
    return JobSpec.model_validate(document)


def controller_of(spec: JobSpec, searcher: Any = Draws()) -> Controller:
    return Controller(spec, searcher, trial_scheduler_of(spec))
