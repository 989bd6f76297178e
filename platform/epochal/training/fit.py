"""Train one model as one of its workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from epochal.tracking.recorder import Recorder
from epochal.training import seeding
from epochal.training.control import Control
from epochal.training.ending import leave
from epochal.training.loop import Loop
from epochal.training.segment import WHOLE, Segment
from epochal.training.setup import Setup
from epochal.training.worker import Worker


@dataclass(frozen=True)
class FitResult:
    """How a training ended: the same on every worker.

    ``state`` is "reached" at the end of a segment after which there is more to train. ``metrics`` are those of the
    newest validation, the ``train/loss`` of the step before it, and those of the test samples; ``best`` is the
    objective's best value and the step it was seen at. ``weights`` is the file of the weights that are exported,
    relative to the job's folder, None where the training was stopped, goes on, or was not to write them.
    """

    state: Literal["completed", "stopped", "reached"]
    step: int
    total_steps: int
    epochs: float
    metrics: dict[str, float]
    best: tuple[float, int] | None
    early_stopped: bool
    weights: str | None


def fit(
    setup: Setup, worker: Worker, folder: Path, recorder: Recorder, control: Control, segment: Segment = WHOLE
) -> FitResult:
    """Train until the job spec is fulfilled, the segment ends, the metric stops getting better, or a stop is asked for.

    ``folder`` is the job's: checkpoints and the final weights go there. Where there are several workers, each has
    joined the default process group.

    Raises:
        NonFiniteError: on every worker, the same.
        CheckpointError: saved state cannot be written or does not fit.
        TrainingError: the spec asks for something that this model or task does not have.
    """
    with seeding.deterministic(setup.spec.train.deterministic):
        loop = Loop(setup, worker, folder, recorder, control, segment)
        try:
            loop.run()
            return ended(loop)
        except BaseException:
            loop.abandon()
            raise


def ended(loop: Loop) -> FitResult:
    """The result of a loop that has come to its end; writes the final weights where they are wanted."""
    weights, tested = leave(loop) if loop.completed and loop.beats else (None, {})
    state, best = loop.state, loop.state.best
    return FitResult(
        state="completed" if loop.completed else "stopped" if loop.stopped else "reached",
        step=state.step,
        total_steps=loop.total_steps,
        epochs=loop.epochs(state.step),
        metrics={**state.metrics, **tested},
        best=(best.value, best.step) if best is not None and best.value is not None else None,
        early_stopped=state.out_of_patience,
        weights=weights,
    )
