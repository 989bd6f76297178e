"""From a split to batches on a worker's device."""

from __future__ import annotations

import multiprocessing
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from epochal.catalog.data import Batch, Field, Split
from epochal.errors import EpochalError
from epochal.own_code import not_ended
from epochal.redaction import trace
from epochal.training import seeding
from epochal.training.fetching import Fetch, Fetched
from epochal.training.left_out import LeftOut
from epochal.training.sampler import Share, part


class Loaded(NamedTuple):
    """A worker's share of a global batch, on its device: ``size`` of the ``global_size`` samples, perhaps none."""

    batch: Batch
    size: int
    global_size: int


class _Request(NamedTuple):
    """What a loader process is asked for."""

    indices: list[int]
    size: int
    global_size: int
    seed: int


@dataclass(frozen=True)
class Loader:
    """Reads shares of ``split``: in this process where ``workers`` is 0, else in that many processes."""

    split: Split
    device: torch.device
    workers: int = 0
    seed: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    fields: Mapping[str, Field] = field(default_factory=dict)
    """What a sample's have to be like; asked only where some cannot be used and are left out."""

    def train(self, shares: Iterable[Share], rank: int) -> Generator[Loaded]:
        """The batches of ``shares`` in their order; closing it ends the loader processes."""
        fetch = Fetch(self.split, self.fields, self.left_out.most + 1 if self.left_out.skip else 0)
        if self.workers == 0:
            return (self._read(fetch, share.indices, share.global_size) for share in shares)
        return self._read_ahead(fetch, _requests(shares, self.seed, rank))

    def once(self, rank: int, world_size: int, batch_size: int) -> Generator[Loaded]:
        """This worker's part of the whole split, in order, no sample twice.

        Every worker gets the same number of batches; the last may be empty, because a sharded model's workers have to
        run it together.
        """
        start, end = part(len(self.split), rank, world_size)
        most = -(-len(self.split) // world_size)
        ranges = ((min(start + low, end), min(start + low + batch_size, end)) for low in range(0, most, batch_size))
        fetch = Fetch(self.split, self.fields, 1 if self.left_out.skip else 0)
        if self.workers == 0:
            return (self._read(fetch, list(range(low, high)), 0) for low, high in ranges)
        return self._read_ahead(fetch, (_request(list(range(low, high)), 0) for low, high in ranges))

    def _read(self, fetch: Fetch, indices: list[int], global_size: int) -> Loaded:
        # Not every split can make a batch of no samples: one is read and left out.
        batch, size, problems = fetch(indices or [0], len(indices))
        self.left_out.add(problems)
        if self.device.type != "cpu":
            # From pinned memory it is copied while the GPU computes.
            batch = {name: _pinned(tensor).to(self.device, non_blocking=True) for name, tensor in batch.items()}
        return Loaded(batch, size, global_size)

    def _read_ahead(self, fetch: Fetch, requests: Iterable[_Request]) -> Generator[Loaded]:
        for (read, size, problems), global_size in read_ahead(_Reader(fetch), self.workers, self.device, requests):
            self.left_out.add(problems)
            batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in read.items()}
            yield Loaded(batch, size, global_size)


class _Reader(Dataset[Any]):
    def __init__(self, fetch: Fetch) -> None:
        self.fetch = fetch

    def __getitem__(self, request: _Request) -> tuple[Fetched, int] | EpochalError:
        # A batch's random numbers depend on its place in the training alone: not on which process reads it, nor on
        # where the training was resumed.
        seeding.start(request.seed)
        try:
            with not_ended():  # otherwise torch would say no more than that this process is gone
                return self.fetch(request.indices, request.size), request.global_size
        except EpochalError as error:  # of what is raised here torch would put the traceback into the message
            error.add_note(f"In a loader process:\n{trace()}")
            return error


def _requests(shares: Iterable[Share], seed: int, rank: int) -> Iterator[_Request]:
    for share in shares:
        request_seed = seeding.derive(seed, "read", rank, *share.position)
        yield _request(share.indices, share.global_size, request_seed)


def _request(indices: list[int], global_size: int, seed: int = 0) -> _Request:
    return _Request(indices or [0], len(indices), global_size, seed)


def read_ahead(
    dataset: Dataset[Any], processes: int, device: torch.device, requests: Iterable[Any] | None = None
) -> Iterator[Any]:
    """What ``dataset`` gives in that many loader processes, for the ``requests`` where it is asked for something.

    Raises:
        EpochalError: one was given.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None,
        sampler=requests,
        num_workers=processes,
        pin_memory=device.type == "cuda",
        multiprocessing_context=loader_processes(),
        collate_fn=_as_it_is,
        # Torch draws a seed for its processes, and would from the generator that the training goes on with.
        generator=torch.Generator(),
    )
    for given in loader:
        if isinstance(given, EpochalError):
            raise given
        yield given


def _as_it_is(item: Any) -> Any:
    return item


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.pin_memory() if tensor.device.type == "cpu" else tensor


def start_early() -> None:
    """Start the process that loader processes are forked from. Returns at once: it imports torch meanwhile."""
    loader_processes()
    forkserver.ensure_running()


def loader_processes() -> BaseContext:
    """How they are started: not forked from this process, whose threads (gloo, Ray, the tracker) may hold locks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["epochal.training.loader"])
    return context


def split_evenly(batch: Batch, size: int, count: int) -> list[Batch]:
    """``count`` parts of a batch of ``size`` samples: as even as can be."""
    if count == 1:
        return [batch]
    bounds = [part(size, index, count) for index in range(count)]
    return [{name: tensor[low:high] for name, tensor in batch.items()} for low, high in bounds]
