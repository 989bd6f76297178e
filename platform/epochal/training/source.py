"""Where a worker's batches come from: samples of a set in a drawn order, or a stream without end."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from epochal.catalog.environment import Acts
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
    """
    Raises:
        EpochalError: while it is read: what cannot be, as far as ``data.on_error`` does not leave it out.
    """
    data, spec, device = setup.data, setup.spec, strategy.worker.device
    if data.info.environment is not None and isinstance(setup.task, Acts):
        return PlayedSource(data.info.environment, setup.task, spec.train, strategy)
    if data.stream is not None:
        lanes = min(data.stream.most_lanes, spec.train.global_batch_size, MOST_LANES)
        return LaneSource(data, spec, device, lanes, left_out)
    sampler = sampler_of(data, spec)
    loader = Loader(data.train, device, spec.data.loader_workers, spec.train.seed, left_out, data.info.fields)
    return SampledSource(sampler, loader)


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
