"""From whole arrays to a dataset: standardised, digested, in a training, a validation and a test part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Annotated, Any, NamedTuple

import torch
from numpy.typing import NDArray
from pydantic import Field as Bounds
from torch import Tensor

from epochal.catalog.data import Batch, DataInfo, Field, LoadedData, Split, TensorSplit
from epochal.catalog.datasets.partition import partition
from epochal.catalog.entry import Params
from epochal.errors import EpochalError, some

MANY = 20
"""Of a target as many different whole numbers are rather classes, more rather numbers to predict."""


class PartitionParams(Params):
    """Parameters of every dataset that makes its own validation and test parts."""

    validation: Annotated[float, Bounds(ge=0, lt=1)] = 0.2
    """Share of the samples held out for validation; 0 trains on all of them and validates on none."""
    test: Annotated[float, Bounds(ge=0, lt=1)] = 0.0
    """Share of the samples that are measured once, after the training; the same ones whatever `validation` is."""
    seed: Annotated[int, Bounds(ge=0, lt=2**32)] = 0
    """Which samples are held out; apart from the training's seed, so that runs can be compared."""


@dataclass(frozen=True)
class Arrays:
    """Samples as whole tensors, and the number of classes of the target (None: real values). ``more``: other fields."""

    input: Tensor
    target: Tensor
    classes: int | None
    more: Mapping[str, Tensor] = field(default_factory=dict)

    def at(self, indices: Tensor) -> Arrays:
        more = {name: tensor[indices] for name, tensor in self.more.items()}
        return Arrays(self.input[indices], self.target[indices], self.classes, more)

    def batch(self) -> Batch:
        return {"input": self.input, "target": self.target, **self.more}


class Parts(NamedTuple):
    """Of one dataset; None where nothing is in it."""

    train: Arrays
    validation: Arrays | None
    test: Arrays | None = None

    def map(self, apply: Callable[[Arrays], Arrays]) -> Parts:
        """Each of them as ``apply`` makes it."""
        return Parts(apply(self.train), *(apply(part) if part is not None else None for part in self[1:]))


def held_out(arrays: Arrays, params: PartitionParams) -> Parts:
    """The parts as ``params`` has their shares."""
    labels = arrays.target if arrays.classes is not None and arrays.target.dim() == 1 else None
    train, validation, test = three_parts(len(arrays.target), params, labels)
    return Parts(arrays.at(train), *(arrays.at(part) if len(part) else None for part in (validation, test)))


def shared_out(arrays: Arrays, params: PartitionParams, validation: Arrays | None, test: Arrays | None) -> Parts:
    """The parts, of which some may be there ``apart``: those have no share of ``arrays``."""
    taken = {name: 0.0 for name, part in (("validation", validation), ("test", test)) if part is not None}
    made = held_out(arrays, params.model_copy(update=taken))
    return Parts(made.train, validation or made.validation, test or made.test)


def three_parts(count: int, params: PartitionParams, labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Sorted indices of the training, the validation and the test samples. The test samples are taken first, so that
    they are the same whatever share is validated on.

    Raises:
        EpochalError: nothing is left to train on.
    """
    if params.validation + params.test >= 1:
        told = f"data.params: validation ({params.validation:g}) and test ({params.test:g}) leave nothing to train on"
        raise EpochalError(told, "together they are below 1")
    rest, test = partition(count, params.test, params.seed, labels)
    share = params.validation / (1 - params.test)
    train, validation = partition(len(rest), share, params.seed, labels if labels is None else labels[rest])
    return rest[train], rest[validation], test


def parts(
    batch: Batch, params: PartitionParams, labels: Tensor | None = None
) -> tuple[TensorSplit, TensorSplit | None, TensorSplit | None]:
    """The training, the validation and the test part of samples of any fields; of each class alike where ``labels``
    are given."""
    chosen = three_parts(len(batch["target"]), params, labels)
    train, *held = (TensorSplit({name: tensor[rows] for name, tensor in batch.items()}) for rows in chosen)
    validation, test = (part if len(part) else None for part in held)
    return train, validation, test


def standardized(
    train: Arrays, validation: Arrays | None, test: Arrays | None = None, input: bool = True, target: bool = False
) -> Parts:
    """All parts in float32, shifted and scaled to mean 0 and deviation 1 of the training part, value by value.

    A value that never changes becomes 0. In float32 only at the end: it has 24 bits, of which values that differ by
    little beside what they have in common (years, money, positions on Earth) would spend most on that.
    """
    scale_input = scaling(train.input) if input else None
    scale_target = scaling(train.target) if target else None

    def apply(part: Arrays) -> Arrays:
        return replace(part, input=_scaled(part.input, scale_input), target=_scaled(part.target, scale_target))

    return Parts(train, validation, test).map(apply)


def loaded(
    train: Arrays,
    validation: Arrays | None,
    test: Arrays | None = None,
    *,
    source: str,
    digest: str,
    vocabulary: int | None = None,
) -> LoadedData:
    """The dataset of these parts. ``vocabulary`` is for inputs that are token ids.

    Raises:
        EpochalError: there are no training samples.
    """
    if not len(train.target):
        raise EpochalError(f"{source} has no training samples")
    info = DataInfo(
        input=Field(tuple(train.input.shape[1:]), train.input.dtype, vocabulary),
        target=Field(tuple(train.target.shape[1:]), train.target.dtype, train.classes),
    )
    splits: list[Split | None] = [
        TensorSplit(part.batch()) if part is not None else None for part in (validation, test)
    ]
    return LoadedData(TensorSplit(train.batch()), splits[0], info, digest, source, test=splits[1])


def unheld(before: Tensor, after: Tensor) -> Tensor:
    """Which values of a sample float32 cannot hold: those too large for it, and those that differ by so little beside
    what they have in common that few of them stay apart. ``before`` is as read, ``after`` what is trained on.
    """
    before, after = before.reshape(len(before), -1), after.reshape(len(after), -1)
    # A few at a time: whole arrays may leave no room for copies in float64.
    return torch.cat(
        [_unheld(*parts) for parts in zip(torch.split(before, 256, 1), torch.split(after, 256, 1), strict=True)]
    )


def _unheld(before: Tensor, after: Tensor) -> Tensor:
    exact, held = before.double(), after.double()
    deviation, largest = exact.std(dim=0, correction=0), exact.abs().amax(dim=0)
    # Less than 1e-12 of what is common is what sums leave of equal numbers.
    differs = (exact.amin(dim=0) != exact.amax(dim=0)) & ~(deviation < 1e-12 * largest)
    constant = (held == held[0]).all(dim=0)
    coarse = (held == exact.float().double()).all(dim=0) & (deviation < 8 * 2**-24 * largest)
    same = (held == exact).all(dim=0)
    return ~held.isfinite().all(dim=0) | (differs & ~same & (constant | coarse))


def classes_shown(classes: NDArray[Any], counts: NDArray[Any]) -> str:
    """How many there are, and the first of them with their samples."""
    return f"{len(classes)} classes: {some([f'{a} ({b:,})' for a, b in zip(classes, counts, strict=True)], 8)}"


def unsure(different: NDArray[Any], is_class: bool) -> Iterator[str]:
    """What a person may have meant otherwise by a target of these ``different`` values."""
    if different.dtype.kind not in "iuf":
        return
    if is_class and len(different) > MANY:
        yield "if it is a number to predict, data.params.target_kind: real"
    elif not is_class and len(different) <= MANY and (different == different.round()).all():
        yield f"whole numbers, {len(different)} different ones: if they are classes, data.params.target_kind: class"


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names, types, shapes and values."""
    digest = sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def scaling(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each value of samples (samples, ...), for one that never changes itself and 1: (...)."""
    deviation, mean = torch.std_mean(values.double(), dim=0, correction=0)
    # Not by the deviation, which rounding can make more than 0, or of tiny values too little to tell.
    constant = values.amin(dim=0) == values.amax(dim=0)
    return torch.where(constant, values[0].double(), mean), torch.where(constant, 1.0, deviation)


def _scaled(values: Tensor, scale: tuple[Tensor, Tensor] | None) -> Tensor:
    if scale is not None:
        values = (values.double() - scale[0]) / scale[1]
    return values.float() if values.is_floating_point() else values
