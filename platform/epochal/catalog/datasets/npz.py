"""Your own NumPy arrays in one .npz file: ``x``, ``y``, and where you have them apart ``x_val``, ``y_val``, ``x_test``,
``y_test``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field as Bounds
from torch import Tensor

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.files import existing, reading
from epochal.catalog.datasets.in_memory import (
    Arrays,
    PartitionParams,
    classes_shown,
    digest_of,
    loaded,
    shared_out,
    standardized,
    unheld,
    unsure,
)
from epochal.catalog.entry import Dataset
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError, some


class NpzParams(PartitionParams):
    path: Annotated[str, Bounds(min_length=1)]
    """The file; relative to the spec's folder. `x` and `y` count samples in their first dimension."""
    input_kind: Literal["real", "tokens"] = "real"
    """Whether `x` holds real values, or token ids of shape (samples, time)."""
    target_kind: Literal["class", "real"] | None = None
    """null: class for whole numbers, booleans and text, real for others."""
    scale: Annotated[float, Bounds(gt=0)] = 1.0
    """Real inputs are multiplied by this; 0.00392156862745098 takes bytes to 0..1."""
    standardize: bool = False
    """Shift and scale real inputs to mean 0 and standard deviation 1 of the training part."""


def build(params: NpzParams, folder: Path) -> LoadedData:
    """input: (...) as in ``x``; target: a class, or (...) as in ``y``."""
    path = existing(params.path, folder)
    arrays = _read(path)
    numbered, names = _numbered(arrays, params, path)
    tensors = {
        name: _input(name, array, params, path) if name.startswith("x") else numbered[name]
        for name, array in arrays.items()
    }
    classes = len(names) or None
    whole = Arrays(tensors["x"], tensors["y"], classes)
    apart = {
        part: Arrays(tensors[f"x_{part}"], tensors[f"y_{part}"], classes)
        for part in ("val", "test")
        if f"x_{part}" in tensors
    }
    parts = shared_out(whole, params, apart.get("val"), apart.get("test"))
    real = params.input_kind == "real"
    train, *rest = standardized(*parts, input=params.standardize and real)
    vocabulary = None if real else 1 + max(int(tensors[name].max()) for name in tensors if name.startswith("x"))
    if params.standardize and real and unheld(parts[0].input, train.input).any():
        raise EpochalError(
            f"{path} (member x): found values that float32 cannot hold once standardised", "rescale them"
        )
    data = loaded(train, *rest, source=str(path), digest=digest_of(tensors), vocabulary=vocabulary)
    return replace(data, understood=_understood(arrays, classes, params), classes=names)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    with reading(path, "an .npz file", _HINT), path.open("rb") as content:  # numpy would leave open what is none
        file = np.load(content, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise EpochalError(f"{path}: found one array, expected an .npz file with x and y", _HINT)
        for name in (name for pair in _PAIRS for name in pair):
            with reading(f"{path} (member {name})", "an array without pickled objects", _HINT):
                arrays.update({name: file[name]} if name in file else {})
        names = ", ".join(file.files)
    for inputs, targets in _PAIRS:
        if (inputs in arrays) != (targets in arrays) or "x" not in arrays:
            told = f"{path} needs arrays x and y, and x_val with y_val, x_test with y_test; it has {names or 'none'}"
            raise EpochalError(told, _HINT)
        if inputs in arrays:
            _check_pair(path, inputs, arrays[inputs], arrays[targets])
            for name, first in ((inputs, arrays["x"]), (targets, arrays["y"])):
                if arrays[name].shape[1:] != first.shape[1:]:
                    told = f"found samples of shape {arrays[name].shape[1:]}, expected {first.shape[1:]}"
                    raise EpochalError(f"{path} (member {name}): {told}, as in {name[0]}")
    return arrays


_PAIRS = (("x", "y"), ("x_val", "y_val"), ("x_test", "y_test"))
_HINT = "write it with numpy.savez(FILE, x=x, y=y), of numbers, or of text for classes (not objects: y.astype(str))"


def _check_pair(path: Path, inputs: str, x: NDArray[Any], y: NDArray[Any]) -> None:
    targets = inputs.replace("x", "y")
    if x.ndim < 1 or x.shape[:1] != y.shape[:1] or not y.size or not x.size:
        raise EpochalError(f"{path}: {inputs} and {targets} differ in length or are empty: {x.shape} and {y.shape}")
    for name, array, kinds, expected in ((inputs, x, "biuf", "numbers"), (targets, y, "biufUS", "numbers or text")):
        if array.dtype.kind not in kinds:
            raise EpochalError(f"{path} (member {name}): found {array.dtype}, expected {expected}", _HINT)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = np.argwhere(~np.isfinite(array))
            raise EpochalError(
                f"{path} (member {name}, row {bad[0][0]}): found {len(bad):,} values that are missing or not finite,"
                " expected numbers",
                "fill them in, or drop the samples",
            )


def _input(name: str, array: NDArray[Any], params: NpzParams, path: Path) -> Tensor:
    """(samples, ...); one number a sample is one feature."""
    if params.input_kind == "real":
        array = array.reshape(len(array), 1) if array.ndim == 1 else array
        with np.errstate(over="ignore"):
            values = torch.from_numpy(array.astype(np.float64 if params.standardize else np.float32)) * params.scale
        if not params.standardize:
            _refuse_unheld(path, name, array, values / params.scale)
        return values
    if array.dtype.kind not in "iu" or array.min() < 0 or array.ndim < 2:
        found = f"{array.dtype} of shape {array.shape} from {array.min()}"
        raise EpochalError(f"{path} (member {name}): found {found}, expected token ids (samples, time), whole, from 0")
    return torch.from_numpy(array.astype(np.int64))


def _numbered(
    arrays: dict[str, NDArray[Any]], params: NpzParams, path: Path
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The targets, and the names of their classes, which are numbered in the order of their values."""
    # Bytes are text of Python 2's time: of their letters, and not of b'...', classes have their names.
    targets = {
        name: np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
        for name, array in arrays.items()
        if name.startswith("y")
    }
    is_text = [array.dtype.kind in "US" for array in targets.values()]
    if any(is_text) and (not all(is_text) or params.target_kind == "real"):
        found = " and ".join(str(array.dtype) for array in targets.values())
        expected = f"numbers, or text in {some(list(targets))}"
        raise EpochalError(f"{path} (member y): found {found}, expected {expected}", _HINT)
    if (params.target_kind or ("class" if targets["y"].dtype.kind in "iubUS" else "real")) == "real":
        reals = {}
        for name, array in targets.items():
            with np.errstate(over="ignore"):
                reals[name] = torch.from_numpy(array.astype(np.float32))
            _refuse_unheld(path, name, array, reals[name])
        return reals, ()
    if targets["y"].ndim == 2 and targets["y"].shape[1] == 1:  # a column, as tables give it
        targets = {name: array[:, 0] for name, array in targets.items()}
    if targets["y"].ndim != 1:
        shape = targets["y"].shape
        hint = "save the number of the class: y.argmax(axis=1)" if _is_one_hot(targets["y"]) else "save one a sample"
        raise EpochalError(f"{path} (member y): found the shape {shape}, expected one class a sample: (samples,)", hint)
    classes = np.unique(np.concatenate(list(targets.values())))
    numbers = {name: torch.from_numpy(np.searchsorted(classes, array)) for name, array in targets.items()}
    return numbers, tuple(map(str, classes))


def _is_one_hot(array: NDArray[Any]) -> bool:
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in "biuf":
        return False
    return bool(((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all())


def _refuse_unheld(path: Path, name: str, array: NDArray[Any], values: Tensor) -> None:
    if array.dtype.itemsize < 4 or array.dtype == np.float32:  # float32 holds them all
        return
    if unheld(torch.from_numpy(array.astype(np.float64, copy=False)), values).any():
        raise EpochalError(
            f"{path} (member {name}): found values from {array.min():g} to {array.max():g}, which float32 cannot hold"
            " or tell apart",
            "subtract what they have in common, rescale them, or, for x, data.params.standardize: true",
        )


def _understood(arrays: dict[str, NDArray[Any]], classes: int | None, params: NpzParams) -> tuple[Understood, ...]:
    target = "target, real" if classes is None else "target, class"
    return tuple(
        Understood(
            name,
            "input" if name.startswith("x") else target,
            note="; ".join([f"{array.dtype}, shape {array.shape}", *_told(name, array, classes, params)]),
        )
        for name, array in arrays.items()
    )


def _told(name: str, array: NDArray[Any], classes: int | None, params: NpzParams) -> Iterator[str]:
    """What is found in ``x`` and ``y``, and what a person may not have meant."""
    if name == "x" and array.ndim == 4 and array.shape[-1] in (1, 3, 4) and array.shape[1] not in (1, 3, 4):
        yield "if these are pictures, channels come first: save x.transpose(0, 3, 1, 2)"
    if name.startswith("y") and classes:
        yield classes_shown(*np.unique(array, return_counts=True))
    if name == "y" and params.target_kind is None:
        if classes is None and _is_one_hot(array):
            yield "if these are classes, save y.argmax(axis=1)"
        else:
            yield from unsure(np.unique(array), classes is not None)


ENTRY = Dataset(
    summary="Your own NumPy arrays in one .npz file: x and y",
    source="https://numpy.org/doc/stable/reference/generated/numpy.savez.html",
    params=NpzParams,
    build=build,
    task=None,
)
