"""What a training knows about itself between two steps, as far as checkpoints keep it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from epochal.spec.job import JobSpec
from epochal.training.best import Best, value_of
from epochal.training.checkpoint import Manifest


@dataclass
class TrainState:
    """``step`` optimizer steps are done. ``validated`` and ``saved`` are the steps of the newest validation and
    checkpoint; ``metrics`` are the newest validation's; ``seen`` are the values that the metric which the learning rate
    schedule has ``watched`` had at all validations."""

    best: Best | None
    """By the objective."""
    patience: Best | None
    """By early stopping."""
    patience_limit: int
    watched: str | None = None
    step: int = 0
    validated: int = 0
    saved: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    seen: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, spec: JobSpec) -> TrainState:
        stopping = spec.train.early_stopping
        return cls(
            best=Best.of(spec.objective) if spec.objective else None,
            patience=Best.of(stopping) if stopping else None,
            patience_limit=stopping.patience if stopping else 0,
            watched=spec.train.lr_schedule.params.get("metric"),
        )

    @property
    def out_of_patience(self) -> bool:
        return self.patience is not None and self.patience.stale >= self.patience_limit

    @property
    def at_best(self) -> bool:
        """Whether the weights as they are now gave the objective's best value."""
        return self.best is not None and self.best.value is not None and self.best.step == self.step

    def judge(self, metrics: dict[str, float]) -> None:
        """Take in the metrics of a validation at the current step.

        Raises:
            TrainingError: the objective, early stopping or the learning rate schedule wants another metric.
        """
        self.metrics, self.validated = metrics, self.step
        self.best = self.best and self.best.after(self.step, metrics)
        self.patience = self.patience and self.patience.after(self.step, metrics)
        if self.watched is not None:
            self.seen.append(value_of(self.watched, metrics))

    def state(self) -> dict[str, Any]:
        return {
            "best": self.best.state() if self.best else {},
            "patience": self.patience.state() if self.patience else {},
            "seen": list(self.seen),
        }

    def restore(self, manifest: Manifest) -> None:
        self.step = self.saved = manifest.step
        self.validated, self.metrics = manifest.validated, dict(manifest.metrics)
        self.best = self.best and self.best.restored(manifest.state["best"])
        self.patience = self.patience and self.patience.restored(manifest.state["patience"])
        self.seen = list(manifest.state.get("seen", ()))  # older checkpoints have none
