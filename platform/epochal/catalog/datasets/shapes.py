"""Made-up pictures of circles, squares and triangles on noise, with the class of each pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field as Bounds
from torch import Generator, Tensor

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.in_memory import Arrays, PartitionParams, digest_of, held_out, loaded
from epochal.catalog.entry import Dataset

CLASSES = ("background", "circle", "square", "triangle")


class ShapesParams(PartitionParams):
    samples: Annotated[int, Bounds(ge=1)] = 500
    """How many pictures, both parts together."""
    size: Annotated[int, Bounds(ge=8, le=1024)] = 32
    """Side of a picture in pixels."""
    shapes: Annotated[int, Bounds(ge=1, le=20)] = 3
    """Shapes on a picture; later ones hide earlier ones."""
    noise: Annotated[float, Bounds(ge=0)] = 0.1
    """Standard deviation of what is added to each value, which are from 0 to 1."""


def build(params: ShapesParams, folder: Path) -> LoadedData:
    """input: (3, size, size); target: (size, size), 0 for the background, then circle, square, triangle."""
    generator = torch.Generator().manual_seed(params.seed)
    count, size = params.samples, params.size
    pictures = torch.rand(count, 3, 1, 1, generator=generator).expand(-1, -1, size, size).clone()
    target = torch.zeros(count, size, size, dtype=torch.int64)
    for _ in range(params.shapes):
        kind = torch.randint(1, len(CLASSES), (count,), generator=generator)
        covered = _covered(kind, size, generator)
        colour = torch.rand(count, 3, 1, 1, generator=generator)
        pictures = torch.where(covered[:, None], colour, pictures)
        target = torch.where(covered, kind[:, None, None], target)
    pictures += params.noise * torch.randn(pictures.shape, generator=generator)
    arrays = Arrays(pictures, target, len(CLASSES))
    data = loaded(*held_out(arrays, params), source="shapes", digest=digest_of(arrays.batch()))
    return replace(data, classes=CLASSES)


def _covered(kind: Tensor, size: int, generator: Generator) -> Tensor:
    """Which pixels a shape of each ``kind`` covers, somewhere on its picture: (samples, size, size)."""
    centre = torch.rand(2, len(kind), 1, 1, generator=generator) * size
    radius = (0.12 + 0.18 * torch.rand(len(kind), 1, 1, generator=generator)) * size
    place = torch.arange(size) + 0.5
    down, right = (place[:, None] - centre[0]) / radius, (place[None, :] - centre[1]) / radius
    circle = down.square() + right.square() <= 1
    square = (down.abs() <= 0.85) & (right.abs() <= 0.85)
    triangle = (down <= 0.7) & (down >= 1.8 * right.abs() - 1)
    which = kind[:, None, None]
    return ((which == 1) & circle) | ((which == 2) & square) | ((which == 3) & triangle)


ENTRY = Dataset(
    summary="Made-up pictures of circles, squares and triangles with the class of each pixel",
    source="Epochal's own",
    params=ShapesParams,
    build=build,
    task="segmentation",
)
