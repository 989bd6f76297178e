"""Where a training is, as one small document: for the page, for ``epochal status``, and for who watches."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from epochal.agent.worker_time import USES
from epochal.training.control import Phase, Progress

POINTS = 60
"""The most points of the loss that are told: a sparkline's worth."""

_METRICS = 12
_RATE = "perf/samples_per_second"
_RANKS = {"rank": "perf/slowest_rank", "slowest": "perf/slowest_rank_seconds", "mean": "perf/mean_rank_seconds"}
_PARTS = {f"perf/{part}_seconds": part for part in ("data", "forward_backward", "optimizer")}
_RATE_SECONDS = 30.0


class ProgressLog:
    """Gathers the reports of one job's first worker. ``used`` is told what its time goes to: see ``WorkerTime.does``.

    >>> log = ProgressLog()
    >>> log.add(Progress("train", 10, 30, 0, 3.0, {"train/loss": 2.0}), now=0.0)
    >>> log.add(Progress("train", 20, 30, 1, 3.0, {"train/loss": 1.0}), now=5.0)
    >>> document = log.document()
    >>> document["eta_seconds"], document["loss_history"], document["loss_values"]
    (5.0, [[10, 2.0], [20, 1.0]], 2)
    """

    def __init__(self, used: Callable[[str, float], None] = lambda use, waits_for_data: None) -> None:
        self._used = used
        self._newest: Progress | None = None
        self._losses: list[tuple[int, float]] = []
        self._loss_values = 0
        self._pace: deque[tuple[float, int]] = deque()

    def add(self, progress: Progress, now: float) -> None:
        """``now`` is a clock reading in seconds."""
        self._newest = progress
        # Another attempt repeats steps.
        while self._pace and (now - self._pace[0][0] > _RATE_SECONDS or progress.step < self._pace[0][1]):
            self._pace.popleft()
        self._pace.append((now, progress.step))
        loss = progress.metrics.get("train/loss", math.nan)
        if math.isfinite(loss) and (not self._losses or progress.step > self._losses[-1][0]):
            self._losses.append((progress.step, loss))
            self._loss_values += 1
            if len(self._losses) > 4 * POINTS:
                self._losses = [*self._losses[:-1:2], self._losses[-1]]

    def reached(self, step: int, phase: Phase | None = None) -> bool:
        """A worker has done that step, or the first one is in that phase; whether that is news."""
        if self._newest is None:
            return False
        before = self._newest
        self._newest = replace(before, step=max(step, before.step), phase=phase or before.phase)
        return self._newest != before

    def does(self, phase: Phase) -> None:
        """What its workers do just now."""
        self._used(USES[phase], self._waits_for_data() if phase == "train" else 0.0)

    def document(self) -> dict[str, Any]:
        """JSON types; empty before the first report. ``more_metrics`` counts those that are left out, ``loss_values``
        those of which ``loss_history`` has a part."""
        newest = self._newest
        if newest is None:
            return {}
        finite = {name: value for name, value in newest.metrics.items() if math.isfinite(value)}
        metrics = {name: value for name, value in finite.items() if name == _RATE or not name.startswith("perf/")}
        return {
            "phase": newest.phase,
            "step": newest.step,
            "total_steps": newest.total_steps,
            "epoch": newest.epoch,
            "epochs": round(newest.epochs, 3),
            "metrics": dict(list(metrics.items())[:_METRICS]),
            "more_metrics": max(0, len(metrics) - _METRICS),
            "samples_per_second": metrics.get(_RATE),
            "ranks": {key: float(f"{finite[name]:.4g}") for key, name in _RANKS.items() if name in finite},
            "step_seconds": {part: float(f"{finite[name]:.4g}") for name, part in _PARTS.items() if name in finite},
            "eta_seconds": self._eta(newest),
            "loss_history": [[step, float(f"{loss:.6g}")] for step, loss in thinned(self._losses)],
            "loss_values": self._loss_values,
        }

    def _waits_for_data(self) -> float:
        """The share of a step's time that the first worker waits for its batch, by its newest report."""
        metrics: Mapping[str, float] = self._newest.metrics if self._newest else {}
        parts = {part: metrics.get(name, 0.0) for name, part in _PARTS.items()}
        return parts["data"] / total if (total := sum(parts.values())) > 0 else 0.0

    def _eta(self, newest: Progress) -> float | None:
        """Seconds to the last step, at the pace of the last half minute."""
        (begun, first), (now, step) = self._pace[0], self._pace[-1]
        if step <= first or now <= begun:
            return None
        return round((newest.total_steps - step) * (now - begun) / (step - first), 1)


def thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most ``POINTS`` of them, evenly spread, the first and the last among them.

    >>> [len(thinned([(0, 0.0)] * count)) for count in (0, 60, 61)]
    [0, 60, 60]
    """
    if len(points) <= POINTS:
        return points
    return [points[round(index * (len(points) - 1) / (POINTS - 1))] for index in range(POINTS)]
