"""Where a worker's batches come from: samples of a set in a drawn order, or a stream without end."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from epochal.catalog.data import LoadedData
from epochal.catalog.environment import Acts
from epochal.errors import TrainingError
from epochal.training.data_summary import split_text
from epochal.training.lanes import LaneSource
from epochal.training.left_out import LeftOut
from epochal.training.loader import Loaded, Loader
from epochal.training.parallel import Strategy
from epochal.training.playing import PlayedSource, State
from epochal.training.sampler import Sampler, sampler_of
from epochal.training.setup import Setup
from epochal.training.worker import Worker

MOST_LANES = 32
"""Of a stream: each is a file that is open, and some samples held to be shuffled."""


class Source(Protocol):
    """The global batches of a training: the same whatever the number of workers."""

    @property
    def steps_per_epoch(self) -> int | None:
        """None where there are no epochs."""

    def read(self, worker: Worker, first: int, last: int, states: Iterable[State]) -> Generator[Loaded]:
        """A worker's shares of the steps ``first`` (included) to ``last`` (excluded); closing it ends its processes.

        ``states`` are what ``state`` gave on each worker of before, at step ``first``: perhaps of another number.
        """

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this worker, as plain JSON values: of the batches that were taken, not of those
        that were read ahead."""


def source_of(setup: Setup, strategy: Strategy, left_out: LeftOut) -> Source:
    """Every worker calls it.

    Raises:
        TrainingError: on each the same: they have found other numbers of samples.
        EpochalError: while it is read: what cannot be, as far as ``data.on_error`` does not leave it out.
    """
    data, spec, device = setup.data, setup.spec, strategy.worker.device
    _refuse_unlike(data, strategy)
    if data.info.environment is not None and isinstance(setup.task, Acts):
        return PlayedSource(data.info.environment, setup.task, spec.train, strategy)
    if data.stream is not None:
        lanes = min(data.stream.most_lanes, spec.train.global_batch_size, MOST_LANES)
        return LaneSource(data, spec, device, lanes, left_out)
    sampler = sampler_of(data, spec)
    loader = Loader(data.train, device, spec.data.loader_workers, spec.train.seed, left_out, data.info.fields)
    return SampledSource(sampler, loader)


def _refuse_unlike(data: LoadedData, strategy: Strategy) -> None:
    """Each worker has read the data by itself: with other numbers they would take other steps, or wait for ever."""
    splits = (data.train, data.validation, data.test)
    own = [0 if split is None else len(split) for split in splits] + [data.stream.most_lanes if data.stream else 0]
    worker = strategy.worker
    table = torch.zeros(worker.world_size, len(own), dtype=torch.float64)
    table[worker.rank] = torch.tensor(own)
    first, *others = [tuple(map(int, row)) for row in strategy.sum(table).tolist()]
    if (rank := next((rank for rank, row in enumerate(others, start=1) if row != first), None)) is not None:
        told = (
            f"{split_text(*row[:3])}{f', in {row[3]:,} files' if row[3] else ''}" for row in (others[rank - 1], first)
        )
        hint = "is the data whole on every node? it must not change while workers start"
        raise TrainingError(f"worker {rank} has found {', and worker 0 '.join(told)}", hint)


@dataclass(frozen=True)
class SampledSource:
    """A map-style dataset: what is read at a step is a function of the step alone."""

    sampler: Sampler
    loader: Loader

    @property
    def steps_per_epoch(self) -> int:
        return self.sampler.steps_per_epoch

    def read(self, worker: Worker, first: int, last: int, states: Iterable[State]) -> Generator[Loaded]:
        shares = self.sampler.shares(worker.rank, worker.world_size, first, last)
        return self.loader.train(shares, worker.rank)

    def state(self) -> dict[str, Any]:
        return {}
