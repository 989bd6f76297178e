"""Files in MNIST's format, IDX, packed by gzip or not: MNIST, Fashion-MNIST, EMNIST, or your own."""

from __future__ import annotations

import gzip
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field as Bounds

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.files import existing, reading
from epochal.catalog.datasets.in_memory import Arrays, PartitionParams, classes_shown, digest_of, held_out, loaded
from epochal.catalog.entry import Dataset
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError, some

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Of the third byte: what the numbers are, the highest byte first."""


class IdxParams(PartitionParams):
    path: Annotated[str, Bounds(min_length=1)]
    """The folder, relative to the spec's, with `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, or these with
    `.gz`; names that hold `train`, `images` and `labels` do too. Those for tests (`t10k-...`) are left out."""


def build(params: IdxParams, folder: Path) -> LoadedData:
    """input: (1, height, width) from 0 to 1, or (channels, height, width); target: a class."""
    root = existing(params.path, folder)
    files = [_only(root, kind) for kind in ("images", "labels")]
    pixels, labels = map(read_idx, files)
    if pixels.ndim not in (3, 4) or labels.shape != pixels.shape[:1] or not len(labels):
        told = f"{files[0]} has the shape {pixels.shape} and {files[1].name} {labels.shape}"
        raise EpochalError(
            f"{told}, expected (samples, height, width) and (samples,)", "are these the files of one data set?"
        )
    classes, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    values = torch.from_numpy(pixels.astype(np.float32) / (255 if pixels.dtype == np.uint8 else 1))
    pictures = values[:, None] if values.dim() == 3 else values
    arrays = Arrays(pictures, torch.from_numpy(numbers.reshape(-1)), len(classes))
    understood = (
        Understood(files[0].name, "input", note=f"{pixels.dtype}, shape {pixels.shape}"),
        Understood(files[1].name, "target, class", note=classes_shown(classes, counts)),
        *(
            Understood(file.name, "left out", note="for tests")
            for file in _found(root)
            if "train" not in file.name.lower()
        ),
    )
    train, validation = held_out(arrays, params)
    data = loaded(train, validation, str(root), digest_of(arrays.batch()), understood=understood)
    return replace(data, classes=tuple(map(str, classes)))


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


def _only(root: Path, kind: str) -> Path:
    """The one file of what is trained on; where it is there packed and unpacked, the one that is not packed."""
    fitting = [file for file in _found(root) if "train" in file.name.lower() and kind in file.name.lower()]
    unpacked = [file for file in fitting if file.suffix != ".gz"] or fitting
    if len(unpacked) != 1:
        names = some([file.name for file in unpacked or _found(root)]) or "none in IDX"
        raise EpochalError(
            f"{root}: found {names}, expected one train-{kind}-idx... file", "name the folder that holds it"
        )
    return unpacked[0]


ENTRY = Dataset(
    summary="Files in MNIST's format (IDX), packed by gzip or not: a folder with train-images and train-labels",
    source="LeCun, Cortes and Burges, The MNIST database, http://yann.lecun.com/exdb/mnist",
    params=IdxParams,
    build=build,
    task="classification",
)
