"""Every sample of a dataset, read once: which of them cannot be trained on, and why."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from epochal.catalog.data import Field, LoadedData, Split, TensorSplit
from epochal.errors import EpochalError
from epochal.files import write_atomically
from epochal.redaction import named
from epochal.spec.job import JobSpec
from epochal.spec.section import is_import_path
from epochal.training.loader import loader_processes

CHUNK = 32
"""Samples that are read together."""

FEW = 512
"""So many samples are read sooner by one process than processes start."""


@dataclass(frozen=True)
class BadSample:
    """The sample ``sample`` (from 0) of a split cannot be trained on."""

    split: str
    sample: int
    reason: str


Fields = Mapping[str, Field]
"""Fields of a sample that are looked at, by name."""

Tell = Callable[[int], None]
"""Told of how many more samples were read."""


def read_all(data: LoadedData, fields: Fields, processes: int, tell: Tell) -> tuple[BadSample, ...]:
    """The samples that cannot be read, or of which ``fields`` are not what they should be, in their order."""
    splits = dict(data.splits())
    chunks = [
        (name, range(start, min(start + CHUNK, len(split))))
        for name, split in splits.items()
        for start in range(0, len(split), CHUNK)
    ]
    return tuple(_read(splits, fields, chunks, processes if _is_worth_processes(splits) else 1, tell))


def read_once(data: LoadedData, spec: JobSpec, folder: Path, processes: int, tell: Tell) -> tuple[BadSample, ...]:
    """As ``read_all``; the result is kept in ``folder`` by the data's digest, and only samples that were bad are read
    again: they may have been mended. Not so of a dataset of the user's own, whose code may change as well.

    What a target may be, a task of the user's own decides (labels to be ignored, say).
    """
    own_task = spec.task is not None and is_import_path(spec.task.name)
    fields = {name: one for name, one in data.info.fields.items() if not own_task or name in data.info.inputs}
    if is_import_path(spec.data.name):
        return read_all(data, fields, processes, tell)
    sizes = [len(split) for _, split in data.splits()]
    of = [data.digest, data.source, spec.data.name, spec.data.params, sizes, *fields]
    key = sha256(json.dumps(of, default=str).encode("utf-8", "surrogateescape")).hexdigest()
    kept = folder / f"{key}.json"
    before = _kept(kept)
    if before is None:
        bad = read_all(data, fields, processes, tell)
    else:
        chunks = [(one.split, range(one.sample, one.sample + 1)) for one in before]
        bad = tuple(_read(dict(data.splits()), fields, chunks, 1, tell))
    with suppress(OSError):  # a home that cannot be written costs the next reading, not this result
        write_atomically(kept, json.dumps([asdict(one) for one in bad]))
    return bad


def _kept(path: Path) -> list[BadSample] | None:
    """None where nothing is kept that can be read."""
    try:
        return [BadSample(**one) for one in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return None


def _is_worth_processes(splits: dict[str, Split]) -> bool:
    read = [split for split in splits.values() if not isinstance(split, TensorSplit)]
    if sum(map(len, read)) <= FEW:
        return False
    try:
        pickle.dumps(read)
    except Exception:  # pickle raises nearly anything; then they are read here
        return False
    return True


Chunk = tuple[str, range]


def _read(
    splits: dict[str, Split], fields: Fields, chunks: Sequence[Chunk], processes: int, tell: Tell
) -> Iterator[BadSample]:
    if processes < 2:
        for name, indices in chunks:
            yield from (BadSample(name, *one) for one in bad_of(splits[name], fields, indices))
            tell(len(indices))
        return
    with ProcessPoolExecutor(processes, loader_processes(), _take, (splits, fields)) as pool:
        waiting = {pool.submit(_bad_of_mine, name, indices): (name, indices) for name, indices in chunks}
        try:
            for done in as_completed(waiting):
                tell(len(waiting[done][1]))
            for done, (name, _) in waiting.items():
                yield from (BadSample(name, *one) for one in done.result())
        except BrokenProcessPool as error:
            hint = "is memory short, or does the data's code end the process?"
            raise EpochalError("a process that read the data has died", hint) from error


_mine: tuple[dict[str, Split], Fields]


def _take(splits: dict[str, Split], fields: Fields) -> None:
    """In a new process: what it is to read."""
    global _mine  # noqa: PLW0603
    _mine = splits, fields
    torch.set_num_threads(1)  # there is a process for each core


def _bad_of_mine(name: str, indices: range) -> list[tuple[int, str]]:
    return bad_of(_mine[0][name], _mine[1], indices)


def bad_of(split: Split, fields: Fields, indices: Sequence[int]) -> list[tuple[int, str]]:
    """Those of the samples at ``indices`` that cannot be read, or are not what ``fields`` say, each with the reason."""
    try:
        batch = split.fetch(list(indices))
        wrong = [found for name, field in fields.items() for found in _wrong(name, batch[name], field)]
    except Exception as error:
        if len(indices) > 1:
            return [bad for index in indices for bad in bad_of(split, fields, [index])]
        return [(indices[0], named(error))]
    first: dict[int, str] = {}
    for row, reason in wrong:
        first.setdefault(row, reason)
    return [(indices[row], first[row]) for row in sorted(first)]


def _wrong(name: str, values: Tensor, field: Field) -> Iterable[tuple[int, str]]:
    if tuple(values.shape[1:]) != field.shape:
        told = f"the {name} has the shape {tuple(values.shape[1:])}, expected {field.shape}"
        return [(row, told) for row in range(len(values))]
    if field.classes is not None:
        told = f"the {name} is not from 0 to {field.classes - 1}"
    else:
        told = f"the {name} has a value that is missing or not finite"
    return [(row, told) for row in field.wrong_rows(values).tolist()]
