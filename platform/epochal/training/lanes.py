"""A stream's batches: lanes that are read side by side, in this process or in loader processes.

Apart from what else batches come from: each loader process imports this file, and little more.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from epochal.catalog.data import Batch, LoadedData
from epochal.catalog.stream import Cursor, Read, Stream
from epochal.errors import EpochalError
from epochal.own_code import not_ended
from epochal.redaction import trace
from epochal.spec.job import JobSpec
from epochal.training.left_out import LeftOut
from epochal.training.loader import Loaded, read_ahead
from epochal.training.sampler import part
from epochal.training.worker import Worker

_REPEATS = 100
"""A lane may meet the same bad records in several passes, and each counts once for ``data.max_errors``. One that meets
them this often in a row, with nothing between, has nothing else any more: its files are gone, say."""


class _Lane(NamedTuple):
    """One of the lanes, which gives ``takes`` samples to each global batch, and ``low`` to ``high`` of them to this
    worker. Where two workers share a lane, each reads the whole of it, and the first ``owns`` it."""

    number: int
    takes: int
    low: int
    high: int

    @property
    def owns(self) -> bool:
        return self.low == 0


class _Part(NamedTuple):
    """Of a step, what some lanes give: the samples, None where those are none, where each lane is afterwards, and
    which records were left out."""

    batch: Batch | None
    size: int
    cursors: dict[int, Cursor]
    problems: list[str]


@dataclass
class LaneSource:
    """A stream: each of a fixed number of lanes gives the same places of every global batch."""

    data: LoadedData
    spec: JobSpec
    device: torch.device
    lanes: int
    left_out: LeftOut
    steps_per_epoch: None = None
    _cursors: dict[int, Cursor] = field(default_factory=dict)

    def read(self, worker: Worker, first: int, last: int, states: Iterable[Mapping[str, Any]]) -> Generator[Loaded]:
        stream, batch_size = self.data.stream, self.spec.train.global_batch_size
        assert stream is not None
        before = {int(lane): one for state in states for lane, one in state.get("cursors", {}).items()}
        mine = _lanes_of(worker, self.lanes, batch_size)
        owned = {lane.number for lane in mine if lane.owns}
        self._cursors = {lane: cursor for lane, cursor in before.items() if lane in owned}
        cursors = {lane.number: before.get(lane.number) for lane in mine}
        most = self.left_out.most if self.left_out.skip else None
        reader = _LaneReader(stream, self.lanes, self.spec.train.seed, mine, cursors, last - first, most)
        for parts in _steps(reader, self.spec.data.loader_workers, self.device):
            batches = [one.batch for one in parts if one.batch is not None]
            for one in parts:
                self._cursors.update({lane: cursor for lane, cursor in one.cursors.items() if lane in owned})
                self.left_out.add(one.problems)
            yield self._loaded(batches, sum(one.size for one in parts), batch_size)

    def _loaded(self, batches: list[Batch], size: int, global_size: int) -> Loaded:
        if not batches:  # more workers than samples
            fields = self.data.info.fields.items()
            batches = [{name: torch.empty((0, *one.shape), dtype=one.dtype) for name, one in fields}]
        joined = batches[0] if len(batches) == 1 else {
            name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}  # fmt: skip
        return Loaded(
            {name: tensor.to(self.device, non_blocking=True) for name, tensor in joined.items()}, size, global_size
        )

    def state(self) -> dict[str, Any]:
        return {"cursors": {str(lane): cursor for lane, cursor in self._cursors.items()}}


def _lanes_of(worker: Worker, lanes: int, global_batch_size: int) -> list[_Lane]:
    """The lanes whose places are in the worker's part of a global batch."""
    begin, end = part(global_batch_size, worker.rank, worker.world_size)
    found = []
    for number in range(lanes):
        first, last = part(global_batch_size, number, lanes)
        low, high = max(first, begin) - first, min(last, end) - first
        if low < high:
            found.append(_Lane(number, last - first, low, high))
    return found


@dataclass(frozen=True, eq=False)
class _LaneReader(IterableDataset[Any]):
    """Reads lanes for a number of steps: in this process all of them, in one of several loader processes its part."""

    stream: Stream
    of: int
    seed: int
    lanes: list[_Lane]
    cursors: Mapping[int, Cursor | None]
    steps: int
    most: int | None
    """``data.max_errors``; None where nothing is left out."""

    def __iter__(self) -> Iterator[_Part | EpochalError]:
        info = get_worker_info()
        number, count = (info.id, info.num_workers) if info is not None else (0, 1)
        mine = self.lanes[slice(*part(len(self.lanes), number, count))]
        records = [self.stream.read(lane.number, self.of, self.seed, self.cursors[lane.number]) for lane in mine]
        try:
            with not_ended():
                for _ in range(self.steps):
                    yield self._step(mine, records)
        except EpochalError as error:
            if info is None:
                raise
            error.add_note(f"In a loader process:\n{trace()}")  # torch would put it into the message
            yield error

    def _step(self, lanes: list[_Lane], records: list[Iterator[Read]]) -> _Part:
        samples: list[Batch] = []
        cursors: dict[int, Cursor] = {}
        problems: list[str] = []
        for lane, reads in zip(lanes, records, strict=True):
            place = bad = 0
            while place < lane.takes:
                read = next(reads)
                cursors[lane.number] = read.cursor
                if read.sample is not None:
                    samples += [read.sample] if lane.low <= place < lane.high else []
                    place, bad = place + 1, 0
                    continue
                bad += 1
                if self.most is None:
                    raise EpochalError(read.problem, "mend or remove it, or go on without: data.on_error: skip")
                if bad > _REPEATS * (self.most + 1):
                    told = f"{bad:,} records in a row cannot be used, the last: {read.problem}"
                    raise EpochalError(told, "are the files still there?")
                if lane.owns:
                    problems.append(read.problem)
        return _Part(default_collate(samples) if samples else None, len(samples), cursors, problems)


def _steps(reader: _LaneReader, processes: int, device: torch.device) -> Iterator[list[_Part]]:
    """What the loader processes, or this one, give of each step, in the order of their lanes."""
    if processes == 0:
        yield from ([one] for one in reader if isinstance(one, _Part))
        return
    parts: list[_Part] = []
    for one in read_ahead(reader, processes, device):  # in turns: the first process's, the second's, ...
        parts.append(one)
        if len(parts) == processes:
            yield parts
            parts = []
