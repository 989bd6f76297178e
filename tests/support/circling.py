"""A stream for loader processes, each of which imports this file: with no more beside it than it needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from epochal.catalog.data import Split
from epochal.catalog.stream import Cursor, Read


@dataclass(frozen=True)
class Circling:
    """A stream: each lane goes round and round over its part of the samples."""

    samples: Split
    most_lanes: int = 3

    def read(self, lane: int, lanes: int, seed: int, cursor: Cursor | None) -> Iterator[Read]:
        place = lane if cursor is None else int(cursor["at"])
        while True:
            sample = {name: one[0] for name, one in self.samples.fetch([place % len(self.samples)]).items()}
            place += lanes
            yield Read(sample, {"at": place})
