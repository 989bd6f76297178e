"""Log chunks to whole lines: a chunk ends anywhere, and those of several ranks arrive in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from epochal.terminal import newest, shown

if TYPE_CHECKING:
    from epochal.client.following import LogChunk

BEGUN_SECONDS = 0.9
"""After which a line that has not ended is shown where it cannot be drawn over."""
AGAIN_SECONDS = 10.0
"""And how often then, where it changes."""

Line = tuple[int, int, str]
"""Attempt, rank, text without its newline."""


class Lines:
    """Keeps what has no newline yet, of every rank of every attempt."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._begun: dict[tuple[int, int], str] = {}
        self._since: dict[tuple[int, int], float] = {}
        self._clock = clock

    def of(self, chunk: LogChunk) -> Iterator[Line]:
        """The lines that are complete with this chunk. An older attempt ends none any more."""
        place = (chunk.attempt, chunk.rank)
        for line in self.begun():
            if line[0] < chunk.attempt:
                del self._begun[line[:2]]
                yield line
        before = self._begun.get(place, "")
        *whole, rest = (before + chunk.text).split("\n")
        self._begun[place] = newest(rest)  # a bar that is written over for hours is one line, and would only grow
        if whole or not before:
            self._since[place] = self._clock()
        yield from ((*place, shown(line)) for line in whole)

    def begun(self, seconds: float = 0.0) -> list[Line]:
        """What there is of the lines that began at least ``seconds`` ago and have not ended."""
        now = self._clock()
        places = sorted(place for place, text in self._begun.items() if text and now - self._since[place] >= seconds)
        return [(*place, shown(self._begun[place])) for place in places]

    def rest(self) -> Iterator[Line]:
        """What ended without a newline."""
        yield from self.begun()
        self._begun.clear()


class Pace:
    """How often a line that is written over is told where each state is a line of its own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._told: dict[tuple[int, int], tuple[float, str]] = {}
        self._clock = clock

    def due(self, begun: Iterable[Line]) -> list[Line]:
        """Of all lines that have begun those to be told now."""
        now, before, self._told = self._clock(), self._told, {}  # without those that have ended meanwhile
        due = []
        for attempt, rank, text in begun:
            at, told = before.get((attempt, rank), (now, ""))
            if now >= at and text != told:
                due.append((attempt, rank, text))
                at, told = now + AGAIN_SECONDS, text
            self._told[attempt, rank] = at, told
        return due
