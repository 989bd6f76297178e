"""Log chunks to whole lines: a chunk ends anywhere, and those of several ranks arrive in turns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epochal.client.following import LogChunk

_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

Line = tuple[int, int, str]
"""Attempt, rank, text without its newline."""


class Lines:
    """Keeps what has no newline yet, of every rank of every attempt."""

    def __init__(self) -> None:
        self._begun: dict[tuple[int, int], str] = {}

    def of(self, chunk: LogChunk) -> Iterator[Line]:
        """The lines that are complete with this chunk."""
        place = (chunk.attempt, chunk.rank)
        *whole, self._begun[place] = (self._begun.get(place, "") + chunk.text).split("\n")
        yield from ((*place, seen(line)) for line in whole)

    def rest(self) -> Iterator[Line]:
        """What ended without a newline."""
        yield from ((*place, seen(text)) for place, text in sorted(self._begun.items()) if text)
        self._begun.clear()


def seen(line: str) -> str:
    """What is left to see of a line on a terminal: no colours, and of a progress bar the last state.

    >>> seen("10%\\r 20%\\r\\x1b[32mdone\\x1b[0m\\r")
    'done'
    """
    return _STYLE.sub("", line).rstrip("\r").rpartition("\r")[2]
