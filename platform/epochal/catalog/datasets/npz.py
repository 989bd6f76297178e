"""Your own NumPy arrays in one .npz file: ``x`` and ``y``, and ``x_val`` and ``y_val`` where you have them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field as Bounds
from torch import Tensor

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.files import existing
from epochal.catalog.datasets.in_memory import Arrays, PartitionParams, digest_of, held_out, loaded, standardized
from epochal.catalog.entry import Dataset
from epochal.errors import EpochalError


class NpzParams(PartitionParams):
    path: Annotated[str, Bounds(min_length=1)]
    """The file; relative to the spec's folder. `x` and `y` count samples in their first dimension."""
    input_kind: Literal["real", "tokens"] = "real"
    """Whether `x` holds real values, or token ids of shape (samples, time)."""
    target_kind: Literal["class", "real"] | None = None
    """null: class for whole numbers and booleans, real for others."""
    scale: Annotated[float, Bounds(gt=0)] = 1.0
    """Real inputs are multiplied by this; 0.00392156862745098 takes bytes to 0..1."""
    standardize: bool = False
    """Shift and scale real inputs to mean 0 and standard deviation 1 of the training part."""


def build(params: NpzParams, folder: Path) -> LoadedData:
    """input: (...) as in ``x``; target: a class, or (...) as in ``y``."""
    path = existing(params.path, folder)
    arrays = _read(path)
    numbered = _numbered(arrays, params, path)
    tensors = {
        name: _input(array, params, path) if name in ("x", "x_val") else numbered[name][0]
        for name, array in arrays.items()
    }
    classes = numbered["y"][1]
    whole = Arrays(tensors["x"], tensors["y"], classes)
    apart = Arrays(tensors["x_val"], tensors["y_val"], classes) if "x_val" in tensors else None
    parts = (whole, apart) if apart is not None else held_out(whole, params)
    real = params.input_kind == "real"
    train, validation = standardized(*parts, input=params.standardize and real)
    vocabulary = None if real else 1 + max(int(tensors[name].max()) for name in tensors if name.startswith("x"))
    return loaded(train, validation, source=str(path), digest=digest_of(tensors), vocabulary=vocabulary)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x", "y", "x_val", "y_val") if name in file}
            names = ", ".join(file.files)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise EpochalError(f"{path} is not an .npz file without pickled objects: {error}") from error
    for inputs, targets in (("x", "y"), ("x_val", "y_val")):
        if (inputs in arrays) != (targets in arrays) or "x" not in arrays:
            raise EpochalError(f"{path} needs arrays x and y, and x_val with y_val; it has {names or 'none'}")
        if inputs in arrays and (arrays[inputs].shape[:1] != arrays[targets].shape[:1] or not arrays[targets].size):
            shapes = f"{arrays[inputs].shape} and {arrays[targets].shape}"
            raise EpochalError(f"{path}: {inputs} and {targets} differ in length or are empty: {shapes}")
    return arrays


def _input(array: NDArray[Any], params: NpzParams, path: Path) -> Tensor:
    if params.input_kind == "real":
        return torch.from_numpy(array.astype(np.float64 if params.standardize else np.float32)) * params.scale
    if array.dtype.kind not in "iu" or array.min() < 0:
        raise EpochalError(f"{path}: token ids are whole numbers from 0, and x holds {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))


def _numbered(arrays: dict[str, NDArray[Any]], params: NpzParams, path: Path) -> dict[str, tuple[Tensor, int | None]]:
    """The targets; classes are numbered in the order of their values."""
    targets = {name: array for name, array in arrays.items() if name in ("y", "y_val")}
    kind = params.target_kind or ("class" if targets["y"].dtype.kind in "iub" else "real")
    if kind == "real":
        return {name: (torch.from_numpy(array.astype(np.float32)), None) for name, array in targets.items()}
    if targets["y"].ndim != 1:
        raise EpochalError(f"{path}: classes have the shape (samples,), and y has {targets['y'].shape}")
    classes = np.unique(np.concatenate(list(targets.values())))
    return {name: (torch.from_numpy(np.searchsorted(classes, array)), len(classes)) for name, array in targets.items()}


ENTRY = Dataset(
    summary="Your own NumPy arrays in one .npz file: x and y",
    source="https://numpy.org/doc/stable/reference/generated/numpy.savez.html",
    params=NpzParams,
    build=build,
    task=None,
)
