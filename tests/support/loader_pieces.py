"""What loader processes are given: each of them imports this file, and so little more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

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


class Noisy:
    """Every sample is drawn anew, as augmentation does."""

    def __len__(self) -> int:
        return 25

    def fetch(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        return {"noise": torch.rand(len(indices), 3)}
