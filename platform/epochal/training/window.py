"""A few steps in a row, after which the workers compare notes.

Losses stay on the device and workers exchange nothing but gradients within a window; at its end one sum over the
workers carries every step's loss and what each worker wants to happen next.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from epochal.errors import NonFiniteLossError
from epochal.training.parallel import Strategy
from epochal.training.step import Gradients

WINDOW_SECONDS = 0.5
"""So late a stop, or a loss that is not finite, may be noticed."""
MOST_STEPS = 2000
"""Of each the loss is held on the device until the window ends."""


class Clock(Protocol):
    """Measures the parts of steps."""

    def mark(self) -> None:
        """Now."""

    def between(self) -> list[float]:
        """Seconds from each mark to the next; forgets them."""


class CpuClock:
    """The process's own progress is all there is."""

    def __init__(self) -> None:
        self._marks: list[float] = []

    def mark(self) -> None:
        self._marks.append(time.perf_counter())

    def between(self) -> list[float]:
        marks, self._marks = self._marks, []
        return [later - sooner for sooner, later in pairwise(marks)]


class GpuClock:
    """Marks the GPU's own progress, because the process runs ahead of it."""

    def __init__(self) -> None:
        self._marks: list[torch.cuda.Event] = []

    def mark(self) -> None:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._marks.append(event)

    def between(self) -> list[float]:
        marks, self._marks = self._marks, []
        if marks:
            marks[-1].synchronize()
        return [sooner.elapsed_time(later) / 1000 for sooner, later in pairwise(marks)]


def clock_for(device: torch.device) -> Clock:
    return GpuClock() if device.type == "cuda" else CpuClock()


class ControlFlags(NamedTuple):
    """What a worker, or after a window any of them, wants to happen now."""

    stop: bool = False
    save: bool = False
    validate: bool = False
    left_out: int = 0
    """Records that could not be used: this worker's, or after a window those of all."""
    not_finite: bool = False
    """A checkpoint was refused: see ``Saver.not_finite``."""


@dataclass(frozen=True)
class StepRecord:
    """What is known of one step once its window is closed."""

    step: int
    loss: float
    lr: float
    grad_norm: float | None
    timestamp: float
    logs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Means over the steps of a window, in seconds. ``alone``: what this rank does until it waits for the others, its
    data and its forward passes: longer on a slow rank, whereas the whole step takes all of them as long."""

    step: float
    data: float
    forward_backward: float
    optimizer: float
    alone: float


@dataclass(frozen=True)
class Closed:
    """A window whose steps every worker knows. ``next_length`` is that of the next window, in steps; ``alone`` has each
    rank's ``Timing.alone``; nothing where ranks wait for each other in their forward passes."""

    records: list[StepRecord]
    flags: ControlFlags
    timing: Timing
    samples: int
    next_length: int
    alone: Sequence[float] = ()

    @property
    def samples_per_second(self) -> float:
        return self.samples / (self.timing.step * len(self.records))

    def performance(self, tokens: int = 0) -> dict[str, float]:
        """The window's ``perf/`` metrics. ``tokens`` of a sample; 0 where it has none."""
        ranks = {"perf/tokens_per_second": self.samples_per_second * tokens} if tokens else {}
        if len(self.alone) > 1:
            slowest = max(range(len(self.alone)), key=self.alone.__getitem__)
            ranks |= {
                "perf/slowest_rank": float(slowest),
                "perf/slowest_rank_seconds": self.alone[slowest],
                "perf/mean_rank_seconds": sum(self.alone) / len(self.alone),
            }
        return {
            "perf/samples_per_second": self.samples_per_second,
            "perf/step_seconds": self.timing.step,
            "perf/data_seconds": self.timing.data,
            "perf/forward_backward_seconds": self.timing.forward_backward,
            "perf/optimizer_seconds": self.timing.optimizer,
            **ranks,
        }


@dataclass
class Window:
    """What one worker saw since the workers last compared notes."""

    first_step: int
    clock: Clock
    losses: list[Tensor] = field(default_factory=list)
    weights: list[float | Tensor] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    norms: list[Tensor | None] = field(default_factory=list)
    logs: list[Mapping[str, Tensor]] = field(default_factory=list)
    timestamps: list[float] = field(default_factory=list)
    samples: int = 0

    def add(self, gradients: Gradients, lr: float, norm: Tensor | None, samples: int) -> None:
        self.losses.append(gradients.loss)
        self.weights.append(gradients.weight)
        self.rates.append(lr)
        self.norms.append(norm)
        if gradients.logs:
            self.logs.append(gradients.logs)
        self.timestamps.append(time.time())
        self.samples += samples

    def close(self, strategy: Strategy, flags: ControlFlags) -> Closed:
        """Exchange notes with the other workers.

        A loss that is not finite leaves the records before it in ``Closed``; see ``raise_unless_finite``.
        """
        columns = [self.losses, *([step[name] for step in self.logs] for name in self._logged)]
        sums = torch.stack([value for column in columns for value in column]).double().cpu()
        timing, ranks = _timing(self.clock.between()), strategy.worker.world_size
        # Zero but in its own place, so that the sum over the workers is everyone's.
        alone = [timing.alone if rank == strategy.worker.rank else 0.0 for rank in range(ranks)]
        notes = torch.cat([sums, torch.tensor([*map(float, flags), timing.step, *alone], dtype=torch.float64)])
        summed = strategy.sum(notes.clone()).tolist()
        totals, (stop, save, validate, left_out, not_finite, seconds, *alone) = summed[: len(sums)], summed[len(sums) :]
        return Closed(
            records=self._records(totals),
            flags=ControlFlags(stop > 0, save > 0, validate > 0, int(left_out), not_finite > 0),
            timing=timing,
            samples=self.samples,
            next_length=_length(seconds / ranks),  # of what is the same on all: their windows have to end together
            alone=[] if strategy.lockstep else alone,
        )

    @property
    def _logged(self) -> list[str]:
        return list(self.logs[0]) if self.logs else []

    def _records(self, totals: list[float]) -> list[StepRecord]:
        """``totals``: all steps' losses, then all steps' values of each name that the task logs."""
        count, norms = len(self.losses), [math.nan if norm is None else norm for norm in self.norms]
        columns = zip(_floats(self.weights), self.rates, _floats(norms), self.timestamps, strict=True)
        return [
            StepRecord(
                step=self.first_step + index + 1,
                loss=totals[index] / weight,
                lr=lr,
                grad_norm=norm if math.isfinite(norm) else None,
                timestamp=timestamp,
                logs={name: totals[row * count + index] / weight for row, name in enumerate(self._logged, start=1)},
            )
            for index, (weight, lr, norm, timestamp) in enumerate(columns)
        ]

    def raise_unless_finite(self, closed: Closed, strategy: Strategy) -> None:
        """Every worker raises the same error, for the earliest step and the lowest rank at that step.

        Raises:
            NonFiniteLossError
        """
        bad = next((index for index, record in enumerate(closed.records) if not math.isfinite(record.loss)), None)
        if bad is None:
            return
        ranks = torch.zeros(strategy.worker.world_size, dtype=torch.float64)
        ranks[strategy.worker.rank] = _kind(float(self.losses[bad]))
        kinds = strategy.sum(ranks).tolist()
        # None of them, where losses that are finite have a sum that is not.
        rank = next((rank for rank, kind in enumerate(kinds) if kind), 0)
        raise NonFiniteLossError(closed.records[bad].step, rank, _VALUES[int(kinds[rank])])


_VALUES = {0: math.nan, 1: math.nan, 2: math.inf, 3: -math.inf}


def _kind(loss: float) -> int:
    if math.isfinite(loss):
        return 0
    return 1 if math.isnan(loss) else 2 if loss > 0 else 3


def _floats(values: Sequence[float | Tensor]) -> list[float]:
    """Plain numbers, with one copy from the device instead of one for each."""
    if isinstance(values[0], Tensor):
        numbers: list[float] = torch.stack([value for value in values if isinstance(value, Tensor)]).tolist()
        return numbers
    return [float(value) for value in values]


def _timing(seconds: list[float]) -> Timing:
    """``seconds`` between the marks of a window, five a step: at its start, with data, before its last backward pass,
    with gradients, updated."""
    steps = (len(seconds) + 1) // 5
    data, forward, backward, optimizer = (sum(seconds[part::5]) / steps for part in range(4))
    return Timing(sum(seconds) / steps, data, forward + backward, optimizer, data + forward)


def _length(step_seconds: float) -> int:
    return max(1, min(MOST_STEPS, int(WINDOW_SECONDS / max(step_seconds, 1e-6))))
