"""When a worker counts as hanging: pure functions over heartbeats; the caller brings the clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil

from epochal.engine.events import Heartbeat
from epochal.engine.failure import Failed, FailureKind
from epochal.training.control import SETUP_SECONDS, Phase

DEFAULT_LIMITS: Mapping[Phase, float] = {
    "setup": SETUP_SECONDS, "train": 60.0, "validate": 300.0, "checkpoint": 600.0, "export": 900.0,
}  # fmt: skip
"""Seconds without progress, by phase. Setting up may download data; the first step may compile."""

STEP_FACTOR = 10
"""A training phase may also take this many times the longest pauses between signs of progress seen so far."""

SILENCE_FACTOR = 2
"""Heartbeats come whatever the training does, so silence is judged by the train limit in every phase: this many times.
It is only broken by code that holds the interpreter's lock for as long."""


def limits_for(no_progress: float | None) -> Mapping[Phase, float]:
    """Where a spec says how long a step may take: that, and as long for what may take longer anyway."""
    if no_progress is None:
        return DEFAULT_LIMITS
    longer: dict[Phase, float] = {phase: max(limit, no_progress) for phase, limit in DEFAULT_LIMITS.items()}
    return {**longer, "train": no_progress}


_REMEMBERED = 1000
_TICKS_PER_STEP = 2  # its batch is read, it is done


@dataclass
class _Rank:
    """One worker's record. ``progressed`` and ``heard`` are clock readings."""

    heard: float
    progressed: float
    beat: Heartbeat
    pauses: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    @property
    def position(self) -> tuple[int, int]:
        return self.beat.ticks, self.beat.stages


class Watchdog:
    """Judges a gang by its workers' heartbeats.

    Those who have got least far hold up the others: the gang hangs when none of them has got anything done for the
    limit of its phase. Who is further waits for them, and is not asked. A worker that is not even heard of (stopped,
    frozen) hangs by itself.

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
        self._ranks[rank] = _Rank(heard=now, progressed=now, beat=Heartbeat(rank, "setup", 0, 0, stepped=False))

    def finish(self, rank: int) -> None:
        self._ranks.pop(rank, None)

    def heard(self, beat: Heartbeat, now: float) -> None:
        known = self._ranks.get(beat.rank)
        if known is None:
            return
        known.heard = now
        if (moves := beat.moves - known.beat.moves) > 0:
            if known.beat.stepped and known.beat.phase == beat.phase == "train":  # not of setting up, nor of idling
                known.pauses.append((now - known.progressed) / max(1, moves // _TICKS_PER_STEP))
            known.progressed = now
        known.beat = beat

    def silent(self, now: float, seconds: float) -> list[int]:
        """The workers that nothing was heard of for that long."""
        return [rank for rank, known in self._ranks.items() if now - known.heard > seconds]

    def heard_at(self, rank: int) -> float:
        return self._ranks[rank].heard

    def hung(self, now: float) -> Failed | None:
        """The worker to blame for a hang; None while there is none."""
        silent = [rank for rank, known in self._ranks.items() if now - known.heard > self._silence_limit(known)]
        if silent:
            return self._blame(silent, now)
        least = min((known.position for known in self._ranks.values()), default=None)
        behind = [rank for rank, known in self._ranks.items() if known.position == least]
        if behind and all(now - self._ranks[rank].progressed > self._limit(self._ranks[rank]) for rank in behind):
            return self._blame(behind, now)
        return None

    def late(self, now: float, grace: float) -> Failed | None:
        """The worker that keeps the gang from ending, once it was to do so within ``grace`` seconds; None while all
        save their state, and get on with it."""
        known = self._ranks.values()
        saving = all(one.beat.phase == "checkpoint" for one in known)
        if not known or (saving and any(now - one.progressed < grace for one in known)):
            return None
        rank = self._culprit(list(self._ranks), now)
        beat = self._ranks[rank].beat
        message = f"killed {grace:g} s after it was asked to end, in phase {beat.phase!r} after step {beat.step}"
        return Failed(rank, FailureKind.HANG, message)

    def _culprit(self, ranks: list[int], now: float) -> int:
        """The one not heard of for longest, where that differs by seconds; else the one furthest behind."""
        return min(
            ranks, key=lambda rank: (-round((now - self._ranks[rank].heard) / 5), self._ranks[rank].position, rank)
        )

    def _blame(self, ranks: list[int], now: float) -> Failed:
        rank = self._culprit(ranks, now)
        known = self._ranks[rank]
        message = (
            f"no progress for {now - known.progressed:.0f} s in phase {known.beat.phase!r} after step"
            f" {known.beat.step}, where {self._limit(known):.0f} s are allowed; if it is only slow there, set"
            " limits.no_progress to more than it needs"
        )
        return Failed(rank, FailureKind.HANG, message)

    def _silence_limit(self, known: _Rank) -> float:
        return min(self._limit(known), SILENCE_FACTOR * self._limits["train"])

    def _limit(self, known: _Rank) -> float:
        limit = self._limits[known.beat.phase]
        if known.beat.phase != "train":
            return limit
        if not known.beat.stepped:
            return max(limit, self._limits["setup"])
        return max(limit, STEP_FACTOR * percentile99(known.pauses))


def percentile99(values: Iterable[float]) -> float:
    """The 99th percentile by nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[ceil(0.99 * len(ordered)) - 1] if ordered else 0.0
