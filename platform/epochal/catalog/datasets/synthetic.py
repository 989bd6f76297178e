"""Made-up data of any shape that a model can learn: for trying things out and for measuring speed."""

from __future__ import annotations

from math import prod, sqrt
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field as Bounds
from torch import Generator, Tensor

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.in_memory import Arrays, PartitionParams, digest_of, held_out, loaded
from epochal.catalog.entry import Dataset
from epochal.errors import EpochalError

Size = Annotated[int, Bounds(ge=1)]


class SyntheticParams(PartitionParams):
    samples: Size = 1000
    """How many samples, both parts together."""
    shape: Annotated[list[Size], Bounds(min_length=1, max_length=4)] = [20]
    """Of one input: [features], [time, features] or [channels, height, width]; [time] where `vocabulary` is set."""
    vocabulary: Annotated[int, Bounds(ge=2)] | None = None
    """Make token ids below this number instead of real values."""
    target: Literal["class", "real"] = "class"
    """Whether to tell classes apart, or to predict a real value."""
    classes: Annotated[int, Bounds(ge=2)] = 10
    """How many classes."""
    noise: Annotated[float, Bounds(ge=0)] = 1.0
    """Standard deviation of what is added: to the inputs of a class, or to a real target."""


def build(params: SyntheticParams, folder: Path) -> LoadedData:
    """input: ``shape``; target: a class or one value."""
    generator = torch.Generator().manual_seed(params.seed)
    if params.vocabulary is not None:
        arrays = _tokens(params, params.vocabulary, generator)
    else:
        arrays = _classes(params, generator) if params.target == "class" else _values(params, generator)
    parts, digest = held_out(arrays, params), digest_of(arrays.batch())
    return loaded(*parts, source="synthetic", digest=digest, vocabulary=params.vocabulary)


def _labels(params: SyntheticParams, generator: Generator) -> Tensor:
    return torch.randint(0, params.classes, (params.samples,), generator=generator)


def _classes(params: SyntheticParams, generator: Generator) -> Arrays:
    """A random pattern for each class, and noise upon it."""
    labels = _labels(params, generator)
    patterns = torch.randn(params.classes, *params.shape, generator=generator)
    noise = torch.randn(params.samples, *params.shape, generator=generator)
    return Arrays(patterns[labels] + params.noise * noise, labels, params.classes)


def _values(params: SyntheticParams, generator: Generator) -> Arrays:
    """A random weighted sum of the input, of variance 1, and noise upon it."""
    inputs = torch.randn(params.samples, *params.shape, generator=generator)
    weights = torch.randn(prod(params.shape), generator=generator) / sqrt(prod(params.shape))
    noise = torch.randn(params.samples, generator=generator)
    return Arrays(inputs, inputs.flatten(1) @ weights + params.noise * noise, None)


def _tokens(params: SyntheticParams, vocabulary: int, generator: Generator) -> Arrays:
    """Each class draws its tokens with its own frequencies."""
    if len(params.shape) != 1 or params.target != "class":
        raise EpochalError("token ids need a shape of [time] and the target class")
    labels = _labels(params, generator)
    frequencies = torch.randn(params.classes, vocabulary, generator=generator).mul(2).softmax(dim=1)
    tokens = torch.multinomial(frequencies[labels], params.shape[0], replacement=True, generator=generator)
    return Arrays(tokens, labels, params.classes)


ENTRY = Dataset(
    summary="Made-up vectors, sequences, images or token ids of any size, with classes or real targets",
    source="Epochal's own: a random pattern for each class, or a random weighted sum, and noise",
    params=SyntheticParams,
    build=build,
    task=None,
)
