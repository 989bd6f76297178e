"""Files in MNIST's format, IDX, packed by gzip or not: MNIST, Fashion-MNIST, EMNIST, or your own."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field as Bounds
from torch import Tensor

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.files import existing, reading
from epochal.catalog.datasets.in_memory import Arrays, PartitionParams, classes_shown, digest_of, loaded, shared_out
from epochal.catalog.entry import Dataset
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError, some

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Of the third byte: what the numbers are, the highest byte first."""


class IdxParams(PartitionParams):
    path: Annotated[str, Bounds(min_length=1)]
    """The folder, relative to the spec's, with `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, or these with
    `.gz`; names that hold `train`, `images` and `labels` do too. Those of `t10k` or `test` are the
    test part, where they are there."""


def build(params: IdxParams, folder: Path) -> LoadedData:
    """input: (1, height, width) from 0 to 1, or (channels, height, width); target: a class."""
    root = existing(params.path, folder)
    read = {name: _pair(root, name) for name in ("train", "test")}
    pixels, labels = zip(*(pair for pair in read.values() if pair is not None), strict=True)
    classes, counts = np.unique(np.concatenate(labels), return_counts=True)
    arrays = [Arrays(*one, len(classes)) for one in zip(map(_pictures, pixels), _numbers(labels, classes), strict=True)]
    if arrays[0].input.shape[1:] != arrays[-1].input.shape[1:]:
        told = f"{arrays[-1].input.shape[1:]} to test with, and of {arrays[0].input.shape[1:]} to train on"
        raise EpochalError(f"{root}: found pictures of {told}", "are these the files of one data set?")
    train, *held = shared_out(arrays[0], params, None, arrays[1] if len(arrays) > 1 else None)
    batches = [one.batch() for one in arrays]
    digest = digest_of({f"{name}{index}": values for index, one in enumerate(batches) for name, values in one.items()})
    understood = (
        Understood("images", "input", note="; ".join(f"{one.dtype}, shape {one.shape}" for one in pixels)),
        Understood("labels", "target, class", note=classes_shown(classes, counts)),
    )
    data = loaded(train, *held, source=str(root), digest=digest)
    return replace(data, classes=tuple(map(str, classes)), understood=understood)


def _pair(root: Path, part: str) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Pictures and labels to train on, or to test with where such files are there."""
    files = [_only(root, part, kind) for kind in ("images", "labels")]
    if files[0] is None or files[1] is None:
        if part == "train" or files != [None, None]:
            names = some([file.name for file in _found(root)]) or "none in IDX"
            kind = "images" if files[0] is None else "labels"
            raise EpochalError(
                f"{root}: found {names}, expected one {part} {kind} file", "name the folder that holds it"
            )
        return None
    pixels, labels = read_idx(files[0]), read_idx(files[1])
    if pixels.ndim not in (3, 4) or labels.shape != pixels.shape[:1] or not len(labels):
        told = f"{files[0]} has the shape {pixels.shape} and {files[1].name} {labels.shape}"
        hint = "are these the files of one data set?"
        raise EpochalError(f"{told}, expected (samples, height, width) and (samples,)", hint)
    return pixels, labels


def _pictures(pixels: NDArray[Any]) -> Tensor:
    values = torch.from_numpy(pixels.astype(np.float32) / (255 if pixels.dtype == np.uint8 else 1))
    return values[:, None] if values.dim() == 3 else values


def _numbers(labels: Sequence[NDArray[Any]], classes: NDArray[Any]) -> list[Tensor]:
    return [torch.from_numpy(np.searchsorted(classes, one)) for one in labels]


def read_idx(file: Path) -> NDArray[Any]:
    """The array of an IDX file, as http://yann.lecun.com/exdb/mnist describes it.

    Raises:
        EpochalError: it is none, or cut off.
    """
    with reading(file, "IDX, MNIST's format"):
        data = file.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in TYPES:
            raise EpochalError(
                f"{file}: found {data[:4].hex(' ')} at its beginning, expected IDX: 00 00 and a known type"
            )
        begin = 4 + 4 * data[3]
        shape = tuple(np.frombuffer(data[4:begin], ">u4").astype(int).tolist())
        kind = np.dtype(TYPES[data[2]])
        if len(data) - begin != prod(shape) * kind.itemsize:
            told = f"found {len(data) - begin:,} bytes of numbers, expected {prod(shape) * kind.itemsize:,}"
            raise EpochalError(f"{file}: {told} for the shape {shape}", "it is cut off, or damaged: fetch it again")
        values = np.frombuffer(data, kind, offset=begin).reshape(shape)
    return values.astype(kind.newbyteorder("="))


def _found(root: Path) -> list[Path]:
    names = root.iterdir() if root.is_dir() else ()
    return sorted(file for file in names if "idx" in file.name.lower() and not file.name.startswith("."))


def _only(root: Path, part: str, kind: str) -> Path | None:
    """The one file of its kind; where it is there packed and unpacked, the one that is not packed. None: there is none,
    or more than one."""
    names = ("train",) if part == "train" else ("t10k", "test")
    fitting = [
        file for file in _found(root) if kind in file.name.lower() and any(name in file.name.lower() for name in names)
    ]
    unpacked = [file for file in fitting if file.suffix != ".gz"] or fitting
    return unpacked[0] if len(unpacked) == 1 else None


ENTRY = Dataset(
    summary="Files in MNIST's format (IDX), packed by gzip or not: a folder with train-images and train-labels",
    source="LeCun, Cortes and Burges, The MNIST database, http://yann.lecun.com/exdb/mnist",
    params=IdxParams,
    build=build,
    task="classification",
)
