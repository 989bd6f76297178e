"""When a worker counts as hanging: pure functions over heartbeats; the caller brings the clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil

from epochal.engine.events import Heartbeat
from epochal.engine.failure import Failed, FailureKind
from epochal.training.control import Phase

DEFAULT_LIMITS: Mapping[Phase, float] = {
    "setup": 900.0, "train": 60.0, "validate": 300.0, "checkpoint": 600.0, "export": 900.0,
}  # fmt: skip
"""Seconds without progress, by phase. Setting up may download data; the first step may compile."""

STEP_FACTOR = 10
"""A training phase may also take this many times the slowest steps seen so far."""

SILENCE_FACTOR = 2
"""Heartbeats come whatever the training does, so silence is judged by the train limit in every phase: this many times.
It is only broken by code that holds the interpreter's lock for as long."""

_REMEMBERED = 1000


@dataclass
class _Rank:
    """One worker's record. ``progressed`` and ``heard`` are clock readings."""

    heard: float
    progressed: float
    phase: Phase = "setup"
    step: int = 0
    ticks: int = 0
    step_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


class Watchdog:
    """Judges a gang by its workers' heartbeats.

    The gang hangs when no worker has got anything done for the limit of its phase: in data-parallel training one
    that is stuck soon holds up the others, while a slow phase of one (validating, exporting) does not condemn those
    who wait for it. A worker that is not even heard of (stopped, frozen) hangs by itself.

    >>> dog = Watchdog({"setup": 5.0, "train": 1.0})
    >>> dog.start(0, now=0.0)
    >>> dog.heard(Heartbeat(0, "train", 1, 1), now=1.0)
    >>> dog.hung(now=2.0), dog.hung(now=60.0).rank
    (None, 0)
    """

    def __init__(self, limits: Mapping[Phase, float] = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._ranks: dict[int, _Rank] = {}

    def start(self, rank: int, now: float) -> None:
        self._ranks[rank] = _Rank(heard=now, progressed=now)

    def finish(self, rank: int) -> None:
        self._ranks.pop(rank, None)

    def heard(self, beat: Heartbeat, now: float) -> None:
        known = self._ranks.get(beat.rank)
        if known is None:
            return
        known.heard = now
        if beat.step > known.step:
            known.step_seconds.append((now - known.progressed) / (beat.step - known.step))
        if beat.ticks != known.ticks:
            known.progressed = now
        known.phase, known.step, known.ticks = beat.phase, beat.step, beat.ticks

    def hung(self, now: float) -> Failed | None:
        """The worker to blame for a hang; None while there is none."""
        silent = [rank for rank, known in self._ranks.items() if now - known.heard > self._silence_limit(known)]
        stuck = [rank for rank, known in self._ranks.items() if now - known.progressed > self._limit(known)]
        if silent:
            return self._blame(silent, now)
        if stuck and len(stuck) == len(self._ranks):
            return self._blame(stuck, now)
        return None

    def _blame(self, ranks: list[int], now: float) -> Failed:
        """The one not heard of for longest, where that differs by seconds; else the one furthest behind."""
        rank = min(ranks, key=lambda rank: (-round((now - self._ranks[rank].heard) / 5), self._ranks[rank].ticks, rank))
        known = self._ranks[rank]
        seconds = now - known.progressed
        message = f"no progress for {seconds:.0f} s in phase {known.phase!r} after step {known.step}"
        return Failed(rank, FailureKind.HANG, message)

    def _silence_limit(self, known: _Rank) -> float:
        return min(self._limit(known), SILENCE_FACTOR * self._limits["train"])

    def _limit(self, known: _Rank) -> float:
        limit = self._limits[known.phase]
        if known.phase != "train":
            return limit
        if known.step == 0:
            return max(limit, self._limits["setup"])
        return max(limit, STEP_FACTOR * percentile99(known.step_seconds))


def percentile99(values: Iterable[float]) -> float:
    """The 99th percentile by nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[ceil(0.99 * len(ordered)) - 1] if ordered else 0.0
