"""What the world outside can ask of a running worker, and what the worker tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from epochal.training.data_summary import DataSummary

Phase = Literal["setup", "train", "validate", "checkpoint", "export"]

SETUP_SECONDS = 900.0
"""What a worker may take to set up, and how long the others wait for it in their rendezvous."""


@dataclass(frozen=True)
class Progress:
    """Where a worker is. ``step`` of ``total_steps`` optimizer steps are done; ``metrics`` are the newest values."""

    phase: Phase
    step: int
    total_steps: int
    epoch: int
    epochs: float
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """A complete checkpoint: ``path`` relative to the job's folder; ``metrics`` are those of the last validation."""

    step: int
    path: str
    digest: str
    metrics: dict[str, float]
    best: bool


@dataclass(frozen=True)
class Prepared:
    """What the first worker built: the data it read, and how many parameters the model has."""

    data: DataSummary
    parameters: int


@dataclass(frozen=True)
class SetAside:
    """A checkpoint that cannot be used: ``path``, relative to the job's folder, is its new name, and ``why`` it has
    that."""

    step: int
    path: str
    why: str


@dataclass(frozen=True)
class Noted:
    """What a person should know of the job, such as a metric that is left out."""

    note: str


Report = Prepared | Progress | Saved | SetAside | Noted


class Control(Protocol):
    """A worker's link to what runs it."""

    def stop_requested(self) -> bool:
        """Asked between steps, often: must be cheap. One rank that sees it is enough; the ranks agree on it."""

    def tick(self, phase: Phase, step: int) -> None:
        """Some work was done (a batch read, a step, a validation batch): feeds the hang watchdog. Must be cheap.

        Every worker ticks at the same points: the one with the fewest ticks is the one that the others wait for. So
        never from a loop that only waits.
        """

    def saving(self, stage_done: bool) -> None:
        """The checkpoint beside the training gets on: a stage of it is done, on every worker the same, or files grow.

        Stages are told by the thread that saves, the growth by the one that trains and waits for it.
        """

    def report(self, report: Report) -> None:
        """Tell the outside. Called a few times a second at the most."""


class NullControl:
    """Never stops, tells nobody."""

    def stop_requested(self) -> bool:
        return False

    def tick(self, phase: Phase, step: int) -> None:
        return

    def saving(self, stage_done: bool) -> None:
        return

    def report(self, report: Report) -> None:
        return
