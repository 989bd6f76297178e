"""Your own samples in tar files, however many: read as a stream, in webdataset's layout."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field as Bounds
from torch import Tensor

from epochal.catalog.data import Batch, DataInfo, Field, LoadedData, SampleSplit
from epochal.catalog.datasets.files import matching, reading
from epochal.catalog.datasets.image_folder import pixels
from epochal.catalog.datasets.picture import picture
from epochal.catalog.datasets.tar_shard import Record, TarShard
from epochal.catalog.entry import Dataset, Params
from epochal.catalog.stream import Cursor, Read
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError, some

Side = Annotated[int, Bounds(ge=1, le=8192)]


_LOOKED_AT = 100
"""Records among which one has to be sound."""


class WebdatasetParams(Params):
    path: Annotated[str, Bounds(min_length=1)]
    """The tar files to train on: `shards/train-*.tar`, `train-{000..127}.tar` or an address such as
    `s3://bucket/train-{000..127}.tar`; relative to the spec's folder."""
    validation_path: Annotated[str, Bounds(min_length=1)] | None = None
    """Those to validate on, none of them in `path`. null: there is no validation data."""
    test_path: Annotated[str, Bounds(min_length=1)] | None = None
    """Those that are measured once, after the training."""
    input: Annotated[str, Bounds(min_length=1)] = "jpg;jpeg;png;webp;npy"
    """What the name of a record's input ends in: the first of these that it has."""
    target: Annotated[str, Bounds(min_length=1)] = "cls"
    """The same of its target: `cls` holds the number of a class as text, `npy` real values or class numbers."""
    classes: Annotated[int, Bounds(ge=2, le=1_000_000)] | None = None
    """How many classes the target has; null: real values."""
    size: Annotated[list[Side], Bounds(min_length=2, max_length=2)] = [32, 32]
    """Height and width in pixels that every image is resized to."""
    mode: Literal["rgb", "grayscale"] = "rgb"
    """Three channels or one."""


@dataclass(frozen=True)
class Decode:
    """From the files of a record to a sample."""

    params: WebdatasetParams

    def __call__(self, shard: TarShard, record: Record) -> Batch:
        """
        Raises:
            EpochalError: the record lacks one, or it cannot be read; the shard and the record are named.
        """
        name = f"{shard.name}: record {record.key}"
        with reading(name):
            return {
                "input": self._field(shard, record, self.params.input).float(),
                "target": self._target(self._field(shard, record, self.params.target)),
            }

    def _field(self, shard: TarShard, record: Record, suffixes: str) -> Tensor:
        suffix = next((one for one in suffixes.lower().split(";") if one in record.files), None)
        name = f"{shard.name}: record {record.key}"
        if suffix is None:
            raise EpochalError(f"{name} has no {suffixes}: it has {some(sorted(record.files))}", "see data.params")
        content = shard.read(record, suffix)
        if suffix.endswith("npy"):
            return torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False))
        if suffix.endswith("cls"):
            return torch.tensor(int(content))
        height, width = self.params.size
        return pixels(picture(Path(f"{name}.{suffix}"), content), (height, width), self.params.mode)

    def _target(self, target: Tensor) -> Tensor:
        if self.params.classes is None:
            return target.float()
        if target.is_floating_point() or ((target < 0) | (target >= self.params.classes)).any():
            found = target.flatten()[:5].tolist()
            raise ValueError(f"expected classes from 0 to {self.params.classes - 1}, got {found}")
        return target.long()


@dataclass(frozen=True)
class Shards:
    """A stream of the records of tar files. In each pass a lane has other shards, and the records of a shard another
    order; no two lanes have the same shard in a pass."""

    names: tuple[str, ...]
    decode: Decode
    fields: tuple[tuple[str, Field], ...]

    @property
    def most_lanes(self) -> int:
        return len(self.names)

    def read(self, lane: int, lanes: int, seed: int, cursor: Cursor | None) -> Iterator[Read]:
        at = cursor or {"pass": 0, "shard": 0, "record": 0}
        number, position, first = at["pass"], at["shard"], at["record"]
        while True:
            found = False
            for place in _drawn(len(self.names), seed, number)[lane::lanes][position:]:
                for read in self._shard(self.names[place], seed + place, {"pass": number, "shard": position}, first):
                    found = True
                    yield read
                position, first = position + 1, 0
            if not found and not cursor:
                raise EpochalError(f"the shards of lane {lane} hold no record: {some(self.names[lane::lanes])}")
            number, position, cursor = number + 1, 0, None

    def _shard(self, name: str, seed: int, at: Cursor, first: int) -> Iterator[Read]:
        """Its records from ``first`` on, in the order of this pass."""
        try:
            shard = TarShard(name)
        except EpochalError as error:
            yield Read(None, {**at, "record": 0}, error.message)
            return
        try:
            order = _drawn(len(shard.records), seed, at["pass"])
            for taken, place in enumerate(order[first:], start=first + 1):
                sample, problem = self._sample(shard, shard.records[place])
                yield Read(sample, {**at, "record": taken}, problem)
            if shard.damage:
                yield Read(None, {**at, "record": len(order)}, shard.damage)
        finally:
            shard.close()

    def _sample(self, shard: TarShard, record: Record) -> tuple[Batch | None, str]:
        try:
            sample = self.decode(shard, record)
        except EpochalError as error:
            return None, error.message
        for name, field in self.fields:
            if tuple(sample[name].shape) != field.shape or sample[name].dtype != field.dtype:
                found, wanted = tuple(sample[name].shape), field.shape
                told = f"the {name} is {sample[name].dtype} {found}, expected {field.dtype} {wanted}"
                return None, f"{shard.name}: record {record.key}: {told}"
        return sample, ""


@dataclass(frozen=True)
class ReadRecord:
    """Reads records of ``names`` by their number."""

    names: tuple[str, ...]
    ends: tuple[int, ...]
    decode: Decode

    def __call__(self, index: int) -> Batch:
        number = int(np.searchsorted(self.ends, index, side="right"))
        shard = _kept(self.names[number])
        return self.decode(shard, shard.records[index - (self.ends[number - 1] if number else 0)])


@lru_cache(maxsize=4)
def _kept(name: str) -> TarShard:
    return TarShard(name)


def _drawn(count: int, seed: int, number: int) -> list[int]:
    """An order of ``count`` things, that of pass ``number``."""
    mixed = int.from_bytes(sha256(f"{seed}/{number}".encode()).digest()[:8], "big") >> 1
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(mixed)).tolist()
    return order


def build(params: WebdatasetParams, folder: Path) -> LoadedData:
    """input: (channels, height, width) from 0 to 1, or the array's shape; target: the class, or the array's shape."""
    names = _names(params.path, folder)
    apart = {path: _names(path, folder) for path in (params.validation_path, params.test_path) if path}
    if both := sorted(name for held in apart.values() for name in held if name in names):
        raise EpochalError(f"{some(both)} are to be trained on and measured", "give each file to one of them")
    decode = Decode(params)
    head = _split(names[:1], decode)
    sample = _first(head)
    info = DataInfo(
        input=Field(tuple(sample["input"].shape), sample["input"].dtype),
        target=Field(tuple(sample["target"].shape), sample["target"].dtype, params.classes),
    )
    stream = Shards(names, decode, tuple(info.fields.items()))
    understood = [Understood(params.path, f"{len(names):,} tar files", note=f"{len(head):,} records in the first")]
    splits = {path: _split(held, decode) for path, held in apart.items()}
    for path, split in splits.items():
        understood.append(Understood(path, f"{len(apart[path]):,} tar files held out", note=f"{len(split):,} records"))
    return LoadedData(
        head,
        splits.get(params.validation_path or ""),
        info,
        _digest((*names, *(name for held in apart.values() for name in held))),
        names[0] if len(names) == 1 else params.path,
        tuple(understood),
        test=splits.get(params.test_path or ""),
        stream=stream,
    )


def _split(names: Sequence[str], decode: Callable[[TarShard, Record], Batch]) -> SampleSplit:
    counts = []
    for name in names:
        shard = _kept(name)
        if shard.damage:
            raise EpochalError(shard.damage, "is it whole?")
        counts.append(len(shard.records))
    if not sum(counts):
        raise EpochalError(f"{some(list(names))} hold no record")
    return SampleSplit(sum(counts), ReadRecord(tuple(names), tuple(accumulate(counts)), decode))  # type: ignore[arg-type]


def _first(head: SampleSplit) -> Batch:
    """The first sample that can be read: what becomes of others, ``data.on_error`` says."""
    for index in range(min(_LOOKED_AT, len(head)) - 1):
        with suppress(EpochalError):
            return head.read(index)
    return head.read(min(_LOOKED_AT, len(head)) - 1)


_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def _names(path: str, folder: Path) -> tuple[str, ...]:
    """The shards that ``path`` stands for, in the order of their names."""
    pattern = path if "://" in path else str(folder / Path(path).expanduser())
    if match := _BRACES.search(pattern):
        first, last = match[1], match[2]
        numbers = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
        found = [pattern[: match.start()] + number + pattern[match.end() :] for number in numbers]
    elif "://" in pattern:
        found = _listed(pattern) if "*" in pattern else [pattern]
    else:
        found = [str(one) for one in matching(path, folder)]
    if absent := [one for one in found if "://" not in one and not Path(one).exists()]:
        raise EpochalError(f"{some(absent)} do not exist", "the workers must see the same files")
    if not found:
        raise EpochalError(f"{pattern} stands for no file", "say {000..127} with the first and the last number")
    return tuple(found)


def _listed(pattern: str) -> list[str]:
    import fsspec

    with reading(pattern, hint="is the address right, and what fsspec needs for it installed?"):
        system, path = fsspec.core.url_to_fs(pattern)
        listed: list[Any] = system.glob(path)
        return sorted(system.unstrip_protocol(one) for one in listed)


def _digest(names: Sequence[str]) -> str:
    """SHA-256 (hex) of names, and of sizes where files are here: reading them all would take longer than some
    trainings."""
    digest = sha256()
    for name in names:
        size = Path(name).stat().st_size if "://" not in name and Path(name).exists() else ""
        digest.update(f"{name.rpartition('/')[2]}:{size};".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


ENTRY = Dataset(
    summary="Your own samples in tar files as webdataset writes them, here or behind an address, read as a stream",
    source="https://github.com/webdataset/webdataset",
    params=WebdatasetParams,
    build=build,
    task=None,
    stream=True,
)
