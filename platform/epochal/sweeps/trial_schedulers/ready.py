"""Trials that are to go on as soon as there is room."""

from __future__ import annotations

import heapq

from epochal.sweeps.ranking import Rank
from epochal.sweeps.trial_scheduler import Next


class Ready:
    """Trials by how soon it is their turn: the lowest ``turn`` first, of equal ones that with the lowest ``rank``."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, Rank, int, float]] = []
        self._waiting: dict[int, tuple[float, Rank, int, float]] = {}

    def add(self, turn: float, rank: Rank, ready: Next) -> None:
        self._waiting[ready.trial] = (turn, rank, ready.trial, ready.until)
        heapq.heappush(self._heap, self._waiting[ready.trial])

    def discard(self, number: int) -> None:
        self._waiting.pop(number, None)

    def first(self, holds: int | None) -> Next | None:
        """Whose turn it is: ``holds``, where that has no later turn than the others; None where nothing waits."""
        # What was discarded, or added anew, is left in the heap until it comes to the top.
        while self._heap and self._waiting.get(self._heap[0][2]) is not self._heap[0]:
            heapq.heappop(self._heap)
        if not self._heap:
            return None
        chosen = self._heap[0]
        if holds in self._waiting and self._waiting[holds][0] <= chosen[0]:
            chosen = self._waiting[holds]
        return Next(chosen[2], chosen[3])
