"""Which samples a worker sees at a step: pure functions of the seed, the step and the number of workers.

The order of samples and the global batches do not depend on the number of workers; only a worker's share does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from epochal.catalog.data import LoadedData
from epochal.spec.job import JobSpec, Train
from epochal.training import seeding
from epochal.training.keyed_order import KeyedOrder

MOST_HELD = 2**24
"""Samples whose order is held in memory, in 128 MiB; that of more is computed as it is needed."""


class Position(NamedTuple):
    """Where a training is: ``step`` optimizer steps of epoch ``epoch`` are done, both from 0."""

    epoch: int
    step: int


class Share(NamedTuple):
    """One worker's part of a global batch."""

    position: Position
    indices: list[int]
    global_size: int


@dataclass(frozen=True)
class Sampler:
    """The global batches of a training set of ``size`` samples: the last one of an epoch may be smaller, or is left out
    (``drop_last``: other samples each epoch)."""

    size: int
    global_batch_size: int
    seed: int
    drop_last: bool = False

    @property
    def steps_per_epoch(self) -> int:
        if self.drop_last:
            return max(1, self.size // self.global_batch_size)
        return -(-self.size // self.global_batch_size)

    def total_steps(self, train: Train) -> int:
        """Those of a training that is so long."""
        return train.steps or (train.epochs or 1) * self.steps_per_epoch

    def fewest(self, world_size: int, micro_batch_size: int | None, together: bool = True) -> int:
        """Samples of the smallest forward pass of an epoch: of all workers ``together``, or of one of them.

        >>> Sampler(25, 8, seed=0).fewest(world_size=2, micro_batch_size=None)
        1
        """
        full = min(self.global_batch_size, self.size)
        found = full
        for size in {full} if self.drop_last else {full, self.size % self.global_batch_size or full}:
            count = micro_batches(size, world_size, micro_batch_size)
            share, rest = divmod(size, world_size)
            # The last worker's share and the last pass of a step are the smallest: the first get what does not divide.
            least, others = share // count, (share + 1) // count
            found = min(found, rest * others + (world_size - rest) * least if together else least)
        return found

    def position(self, step: int) -> Position:
        """Where a training is after ``step`` optimizer steps."""
        return Position(*divmod(step, self.steps_per_epoch))

    def order(self, epoch: int) -> NDArray[np.int64] | KeyedOrder:
        """The samples in the order of one epoch: slices of it are (length,) of int64."""
        seed = seeding.derive(self.seed, "order", epoch)
        if self.size > MOST_HELD:
            return KeyedOrder(self.size, seed)
        # As NumPy has it: a slice of that is a list in a quarter of the time.
        return torch.randperm(self.size, generator=torch.Generator().manual_seed(seed)).numpy()

    def shares(self, rank: int, world_size: int, first: int, last: int) -> Iterator[Share]:
        """The shares of one worker for the steps ``first`` (included) to ``last`` (excluded)."""
        step = first
        while step < last:
            epoch = self.position(step).epoch
            order = self.order(epoch)
            end = min(last, (epoch + 1) * self.steps_per_epoch)
            while step < end:
                position = self.position(step)
                start = position.step * self.global_batch_size
                size = min(self.global_batch_size, self.size - start)
                low, high = part(size, rank, world_size)
                yield Share(position, order[start + low : start + high].tolist(), size)
                step += 1


def part(size: int, rank: int, world_size: int) -> tuple[int, int]:
    """A worker's part of ``size`` things as ``(start, end)``: as even as can be, the first workers get one more.

    >>> [part(5, rank, 3) for rank in range(3)]
    [(0, 2), (2, 4), (4, 5)]
    """
    share, rest = divmod(size, world_size)
    start = rank * share + min(rank, rest)
    return start, start + share + (rank < rest)


def micro_batches(global_size: int, world_size: int, micro_batch_size: int | None) -> int:
    """Forward passes that a step takes, the same on every worker, because collectives inside a model have to match.

    Where a worker's share is smaller than that of others, some of its micro-batches are smaller, perhaps empty.
    """
    largest = -(-global_size // world_size)
    return 1 if micro_batch_size is None else max(1, -(-largest // micro_batch_size))


def sampler_of(data: LoadedData, spec: JobSpec) -> Sampler:
    """The global batches. Of what has no end they are as large as that of an epoch of one step."""
    train = spec.train
    size = train.global_batch_size if data.endless else len(data.train)
    return Sampler(size, train.global_batch_size, train.seed, train.drop_last)
