"""What data looks like to a model and a task, whatever dataset it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from epochal.catalog.datasets.files import reading
from epochal.catalog.stream import Stream
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError, some

if TYPE_CHECKING:
    from epochal.catalog.environment import Environment

Batch = dict[str, Tensor]
"""Tensors by field name; the first dimension of each is the sample."""


@dataclass(frozen=True)
class Field:
    """One field of a sample: its shape without the batch dimension, and its type.

    ``classes`` is the number of classes of a label, or the vocabulary size of token ids; None for real values.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    classes: int | None = None
    counts: tuple[int, ...] = field(default=(), compare=False)
    """Of a target: the training samples (or pixels) of each class, where that is known without reading them."""
    labels: tuple[tuple[int, int], ...] = field(default=(), compare=False)
    """Of a target of zeros and ones: the training samples with 0 and those with 1 in each of its values."""
    names: tuple[str, ...] = field(default=(), compare=False)
    """Of a number that says which file a sample is from: those files, by it."""

    @property
    def width(self) -> int:
        """Outputs a model needs to predict this field: the classes, else the number of values."""
        return self.classes if self.classes is not None else prod(self.shape)

    @property
    def predicted(self) -> tuple[int, ...]:
        """The shape of a sample's outputs that predict this field: with a value for each class where it has some."""
        return self.shape if self.classes is None else (*self.shape, self.classes)

    def wrong_rows(self, values: Tensor) -> Tensor:
        """The rows of ``values`` (batch, *shape) with one that is no class, or not finite: (rows,)."""
        wrong = ~torch.isfinite(values) if self.classes is None else (values < 0) | (values >= self.classes)
        return wrong.reshape(len(wrong), -1).any(dim=1).nonzero().flatten()

    def example(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """A random tensor (batch, *shape) of this field's type."""
        if self.dtype.is_floating_point:
            return torch.randn(batch, *self.shape, dtype=self.dtype, generator=generator)
        return torch.randint(0, self.classes or 2, (batch, *self.shape), dtype=self.dtype, generator=generator)


@dataclass(frozen=True)
class DataInfo:
    """What a model is built for: the fields of every sample. ``more`` are those beside ``input`` and ``target``."""

    input: Field
    target: Field
    more: Mapping[str, Field] = field(default_factory=dict)
    inputs: tuple[str, ...] = ("input",)
    """The fields that the model is called with, in this order; ``input`` is one of them."""
    environment: Environment | None = field(default=None, compare=False)
    """Where a model acts whose samples are made by that."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.inputs if name not in self.fields]:
            told = f"DataInfo.inputs names {some(unknown)}, and the fields are {some(list(self.fields))}"
            raise EpochalError(told, "describe each field beside input and target in DataInfo.more")
        if taken := self.more.keys() & {"input", "target"}:
            raise EpochalError(f"DataInfo.more has {some(sorted(taken))}, a field of its own", "name it otherwise")

    @property
    def fields(self) -> dict[str, Field]:
        """All, by name."""
        return {"input": self.input, "target": self.target, **self.more}

    @property
    def tokens(self) -> int:
        """Of a sample, where its input is a sequence of token ids; else 0."""
        return self.input.shape[0] if self.input.classes is not None and len(self.input.shape) == 1 else 0

    def call(self, model: Callable[..., Any], batch: Batch) -> Any:
        """What the model gives for the batch.

        Raises:
            EpochalError: the batch has no such field.
        """
        if missing := [name for name in self.inputs if name not in batch]:
            told = f"the model is called with {some(missing)}, and the samples have {some(list(batch))}"
            raise EpochalError(told, "return every field of DataInfo.inputs from the dataset")
        return model(*(batch[name] for name in self.inputs))

    def example(self, batch: int = 2, seed: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        return {name: field.example(batch, generator) for name, field in self.fields.items()}


class Split(Protocol):
    """A map-style dataset. ``fetch`` returns the samples at ``indices`` as one batch.

    ``fetch`` is called in a loader process where ``data.loader_workers`` is above 0, so it must be picklable.
    """

    def __len__(self) -> int: ...

    def fetch(self, indices: Sequence[int]) -> Batch: ...


@dataclass(frozen=True)
class TensorSplit:
    """Samples held in memory: one tensor a field, the sample in the first dimension."""

    tensors: Batch

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def fetch(self, indices: Sequence[int]) -> Batch:
        # Through NumPy: torch takes longer over a list of numbers, and its frombuffer refuses an empty share.
        chosen = torch.from_numpy(np.asarray(indices, dtype=np.int64))
        return {name: tensor.index_select(0, chosen) for name, tensor in self.tensors.items()}


@dataclass(frozen=True)
class SampleSplit:
    """Samples read one by one: ``read(index)`` returns one sample's fields without a batch dimension."""

    size: int
    read: Callable[[int], Batch]
    targets: Tensor | None = None
    """Those of all samples, where they are known without reading any."""

    def __len__(self) -> int:
        return self.size

    def fetch(self, indices: Sequence[int]) -> Batch:
        """
        Raises:
            EpochalError: a sample cannot be read, or is unlike the others; it is named.
        """
        if not len(indices):  # a worker's share of a small batch may be empty, yet its shapes are needed
            return {name: tensor[:0] for name, tensor in self.fetch([0]).items()}
        samples = []
        for index in indices:
            with reading(f"sample {index}", hint=_MEND):
                samples.append(self.read(index))
        with reading(f"the samples {some([str(index) for index in indices])}", "one batch", _MEND):
            try:
                batch: Batch = default_collate(samples)
            except Exception:
                _refuse_unlike(samples, indices)
                raise
        return batch


_MEND = "mend it, or take it out; `epochal plan --data` lists every sample that is bad"


def _refuse_unlike(samples: Sequence[Batch], indices: Sequence[int]) -> None:
    expected = _layout(samples[0])
    for index, sample in zip(indices, samples, strict=True):
        if (found := _layout(sample)) != expected:
            where = f"sample {index}: found {found}, expected {expected}, as in sample {indices[0]}"
            raise EpochalError(where, _MEND)


def _layout(sample: Any) -> str:
    if not isinstance(sample, Mapping):
        return f"a {type(sample).__name__}"
    fields = (f"{name} {tuple(value.shape)}" for name, value in sample.items() if isinstance(value, Tensor))
    return ", ".join(fields) or "no tensor"


def targets_of(split: Split) -> Tensor | None:
    """The targets of all samples in their order, where that takes no reading."""
    if isinstance(split, TensorSplit):
        return split.tensors.get("target")
    return split.targets if isinstance(split, SampleSplit) else None


@dataclass(frozen=True)
class LoadedData:
    """A dataset ready for training.

    ``digest`` identifies the content (hex); ``source`` says where it came from, for the MLflow dataset input;
    ``classes`` are the names of the target's, by their numbers, where they have any. ``doubts`` reads what takes some
    time, for `plan`, and says what a person should look at before a training. ``test`` is measured once, after the
    training, and nothing is chosen by it.

    Where there is a ``stream``, or an environment in ``info``, that is what is trained on, and ``train`` has some
    samples of it to look at beforehand.
    """

    train: Split
    validation: Split | None
    info: DataInfo
    digest: str
    source: str
    understood: tuple[Understood, ...] = ()
    doubts: Callable[[], Iterable[str]] = tuple
    classes: tuple[str, ...] = ()
    test: Split | None = None
    stream: Stream | None = None

    @property
    def endless(self) -> bool:
        """Whether what is trained on has no end, and so no epochs."""
        return self.stream is not None or self.info.environment is not None

    @property
    def train_samples(self) -> int:
        """How many there are to train on; 0 of what has no end."""
        return 0 if self.endless else len(self.train)

    def splits(self) -> Iterator[tuple[str, Split]]:
        yield "train", self.train
        if self.validation is not None:
            yield "validation", self.validation
        if self.test is not None:
            yield "test", self.test


class DataLoading(Protocol):
    """How a dataset entry loads.

    ``params`` is the entry's own parameter model; relative paths in it are meant from ``folder``. Raises
    ``EpochalError`` where the data is missing or cannot be used.
    """

    def __call__(self, params: Any, folder: Path) -> LoadedData: ...
