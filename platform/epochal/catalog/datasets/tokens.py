"""Token ids in binary files, as programs that prepare language models write them; larger than memory where need be."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field as Bounds

from epochal.catalog.data import Batch, DataInfo, Field, LoadedData
from epochal.catalog.datasets.files import matching, reading
from epochal.catalog.entry import Dataset, Params
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError

PIECE = 16 << 20
"""Bytes that are read at a time where a file is gone through."""
_WHOLE = 64 << 20
"""A larger file's digest is of pieces of it."""


class TokensParams(Params):
    path: Annotated[str, Bounds(min_length=1)]
    """The file, or a pattern such as `tokens/*.bin` for several; relative to the spec's folder."""
    validation_path: Annotated[str, Bounds(min_length=1)] | None = None
    """Tokens to validate on, file or pattern. null: the last `validation` share of `path`."""
    dtype: Literal["uint16", "uint32"] = "uint16"
    """What each token is stored as, in little-endian bytes without a header."""
    vocabulary: Annotated[int, Bounds(ge=2, le=2**31)] | None = None
    """How many different tokens there are. null: the largest that is found and one; all files are read for it."""
    length: Annotated[int, Bounds(ge=1, le=1_000_000)] = 256
    """Tokens of a sequence. Sequences follow each other in a file without an overlap."""
    validation: Annotated[float, Bounds(ge=0, lt=1)] = 0.02
    """Share of the sequences, the last ones, that is held out where there is no `validation_path`."""
    test_path: Annotated[str, Bounds(min_length=1)] | None = None
    """Tokens that are measured once, after the training, file or pattern. null: the `test` share of `path`."""
    test: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Share of the sequences, after those for validation, where there is no `test_path`."""


@dataclass(frozen=True)
class TokenFile:
    """``tokens`` numbers of ``dtype``; size and time tell a file from another that took its name."""

    path: Path
    dtype: str
    tokens: int
    modified: int

    @classmethod
    def at(cls, path: Path, dtype: str) -> TokenFile:
        """
        Raises:
            EpochalError: its size is not that of whole tokens.
        """
        found, width = path.stat(), np.dtype(dtype).itemsize
        if found.st_size % width:
            told = f"{path} has {found.st_size:,} bytes, which are no whole number of {dtype} tokens"
            raise EpochalError(told, "set dtype, or write the tokens again: array.astype('<u2').tofile(path)")
        return cls(path, dtype, found.st_size // width, found.st_mtime_ns)

    def read(self, first: int, count: int) -> NDArray[np.int64]:
        """Tokens from ``first`` on.

        Read and not mapped: the pages of a mapped file count as the worker's memory once it has touched them, and at
        random places each sample touches new ones.
        """
        kind = np.dtype(self.dtype).newbyteorder("<")
        wanted = count * kind.itemsize
        content = os.pread(_opened(self).fileno(), wanted, first * kind.itemsize)
        if len(content) < wanted:
            raise EpochalError(f"{self.path} ends before its token {first + count:,}", "was it changed meanwhile?")
        return np.frombuffer(content, dtype=kind).astype(np.int64)

    def pieces(self) -> Iterator[NDArray[np.int64]]:
        step = PIECE // np.dtype(self.dtype).itemsize
        for first in range(0, self.tokens, step):
            yield self.read(first, min(step, self.tokens - first))


@lru_cache(maxsize=128)
def _opened(file: TokenFile) -> BinaryIO:
    return file.path.open("rb", buffering=0)


@dataclass(frozen=True)
class TokenSplit:
    """Sequences ``first`` to ``last`` of those in the ``files``, each of ``length`` tokens and the one after them."""

    files: tuple[TokenFile, ...]
    length: int
    vocabulary: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first

    def fetch(self, indices: Sequence[int]) -> Batch:
        """
        Raises:
            EpochalError: a token is not in the vocabulary, or a file was cut meanwhile.
        """
        rows = np.empty((len(indices), self.length + 1), dtype=np.int64)
        for row, index in zip(rows, indices, strict=True):
            file, place = self._place(self.first + index)
            row[:] = file.read(place, self.length + 1)
            if (largest := row.max()) >= self.vocabulary:
                told = f"{file.path} has the token {largest} after its token {place:,}"
                hint = f"the vocabulary is {self.vocabulary}: set data.params.vocabulary, or dtype"
                raise EpochalError(told, hint)
        both = torch.from_numpy(rows)
        return {"input": both[:, :-1].contiguous(), "target": both[:, 1:].contiguous()}

    def _place(self, sequence: int) -> tuple[TokenFile, int]:
        number = int(np.searchsorted(self._ends, sequence, side="right"))
        before = self._ends[number - 1] if number else 0
        return self.files[number], (sequence - before) * self.length

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(sequences(file, self.length) for file in self.files))


def sequences(file: TokenFile, length: int) -> int:
    """How many of so many tokens it has: each token needs one that follows."""
    return max(0, file.tokens - 1) // length


def build(params: TokensParams, folder: Path) -> LoadedData:
    """input: (length,) token ids; target: (length,), the tokens that follow them."""
    files = _files(params.path, params, folder)
    asked = {"test": (params.test_path, params.test), "validation": (params.validation_path, params.validation)}
    apart = {name: _files(path, params, folder) for name, (path, _) in asked.items() if path is not None}
    everything = (*files, *(one for part in apart.values() for one in part))
    vocabulary = params.vocabulary or 1 + max(int(piece.max()) for one in everything for piece in one.pieces())
    count = left = sum(sequences(one, params.length) for one in files)
    train, held_out = TokenSplit(files, params.length, vocabulary, 0, count), dict[str, TokenSplit]()
    for name, (path, share) in asked.items():
        if path is not None:
            last = sum(sequences(one, params.length) for one in apart[name])
            held_out[name] = replace(train, files=apart[name], last=last)
        elif held := round(count * share):
            held_out[name] = replace(train, first=left - held, last=left)
            left -= held
    if left < 1:
        told = f"{count} sequences of {params.length} tokens leave nothing to train on"
        raise EpochalError(told, "hold out less, or take a smaller length")
    field = Field((params.length,), torch.int64, vocabulary)
    return LoadedData(
        replace(train, last=left),
        held_out.get("validation"),
        DataInfo(input=field, target=field),
        _digest(everything),
        str(files[0].path) if len(files) == 1 else str(folder / Path(params.path).expanduser()),
        tuple(_understood(one, params.length) for one in everything),
        test=held_out.get("test"),
    )


def _files(path: str, params: TokensParams, folder: Path) -> tuple[TokenFile, ...]:
    found = []
    for one in matching(path, folder):
        with reading(one):
            found.append(TokenFile.at(one, params.dtype))
    if not any(sequences(one, params.length) for one in found):
        tokens = max(one.tokens for one in found)
        told = f"{folder / path} has {tokens:,} tokens: too few for a sequence of {params.length} and what follows"
        raise EpochalError(told, "give a longer file, or a smaller length")
    return tuple(found)


def _understood(file: TokenFile, length: int) -> Understood:
    left = file.tokens - sequences(file, length) * length
    note = f"{sequences(file, length):,} sequences of {length}; the last {left} only follow, or are left out"
    return Understood(file.path.name, f"{file.tokens:,} tokens of {file.dtype}", note=note)


def _digest(files: Sequence[TokenFile]) -> str:
    """SHA-256 (hex) of sizes and content; of a file beyond 64 MiB of 64 pieces: to read it all takes minutes."""
    digest = sha256()
    for file in files:
        digest.update(f"{file.path.name}:{file.dtype}:{file.tokens};".encode("utf-8", "surrogateescape"))
        if file.tokens * np.dtype(file.dtype).itemsize <= _WHOLE:
            pieces = file.pieces()
        else:
            starts = np.linspace(0, file.tokens - 65_536, 64, dtype=np.int64).tolist()
            pieces = (file.read(first, 65_536) for first in starts)
        for piece in pieces:
            digest.update(piece.astype(file.dtype).tobytes())
    return digest.hexdigest()


ENTRY = Dataset(
    summary="Token ids in binary files (uint16 or uint32) of any size, each with the one that follows",
    source="https://github.com/karpathy/nanoGPT/blob/master/data/openwebtext/prepare.py",
    params=TokensParams,
    build=build,
    task="language-modelling",
)
