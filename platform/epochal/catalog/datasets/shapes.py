"""Made-up pictures of circles, squares and triangles on noise: the class of each pixel, boxes, or what is on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field as Bounds
from torch import Generator, Tensor

from epochal.catalog.architectures.detector import detection_target
from epochal.catalog.data import Batch, DataInfo, Field, LoadedData
from epochal.catalog.datasets.in_memory import Arrays, PartitionParams, digest_of, held_out, loaded, parts
from epochal.catalog.entry import Dataset

CLASSES = ("background", "circle", "square", "triangle")


class ShapesParams(PartitionParams):
    samples: Annotated[int, Bounds(ge=1)] = 500
    """How many pictures, both parts together."""
    target: Literal["pixels", "boxes", "kinds"] = "pixels"
    """What is to be found: the class of each pixel (segmentation), a box around each shape (detection), or which kinds
    of shapes there are (multi-label)."""
    size: Annotated[int, Bounds(ge=8, le=1024)] = 32
    """Side of a picture in pixels."""
    shapes: Annotated[int, Bounds(ge=1, le=20)] = 3
    """Shapes on a picture; later ones hide earlier ones."""
    noise: Annotated[float, Bounds(ge=0)] = 0.1
    """Standard deviation of what is added to each value, which are from 0 to 1."""


def build(params: ShapesParams, folder: Path) -> LoadedData:
    """input: (3, size, size).

    target: `pixels` (size, size), 0 for the background, then circle, square, triangle; `kinds` (3,), 1 for each kind
    that is seen; `boxes` (shapes, 4), left, top, right and bottom in pixels around what is seen of each shape, with
    labels (shapes,): 0 for a shape that others hide, then circle, square, triangle.
    """
    generator = torch.Generator().manual_seed(params.seed)
    count, size = params.samples, params.size
    pictures = torch.rand(count, 3, 1, 1, generator=generator).expand(-1, -1, size, size).clone()
    pixels = torch.zeros(count, size, size, dtype=torch.int64)  # the number of the shape seen there, from 1
    kinds = torch.zeros(count, params.shapes + 1, dtype=torch.int64)
    for number in range(1, params.shapes + 1):
        kinds[:, number] = torch.randint(1, len(CLASSES), (count,), generator=generator)
        covered = _covered(kinds[:, number], size, generator)
        colour = torch.rand(count, 3, 1, 1, generator=generator)
        pictures = torch.where(covered[:, None], colour, pictures)
        pixels = torch.where(covered, number, pixels)
    pictures += params.noise * torch.randn(pictures.shape, generator=generator)
    if params.target == "boxes":
        return _detection(params, {"input": pictures, **_boxes(pixels, kinds)})
    target = kinds.gather(1, pixels.flatten(1)).reshape(pixels.shape)
    classes: int | None = len(CLASSES)
    if params.target == "kinds":
        seen = [(target == kind).flatten(1).any(dim=1) for kind in range(1, len(CLASSES))]
        target, classes = torch.stack(seen, dim=1).float(), None
    arrays = Arrays(pictures, target, classes)
    data = loaded(*held_out(arrays, params), source="shapes", digest=digest_of(arrays.batch()))
    return replace(data, classes=CLASSES if params.target == "pixels" else CLASSES[1:])


def _boxes(pixels: Tensor, kinds: Tensor) -> Batch:
    """Around what is seen of each shape. ``pixels``: (samples, size, size), which is seen there; ``kinds``: (samples,
    1 + shapes), the class of each.
    """
    boxes, labels = [], []
    for number in range(1, kinds.shape[1]):
        seen = pixels == number
        sides = []
        for along in (1, 2):  # of a picture's columns, then its rows
            line = seen.any(dim=along).int()
            sides.append((line.argmax(dim=1), line.shape[1] - line.flip(1).argmax(dim=1)))
        (left, right), (top, bottom) = sides
        shown = seen.flatten(1).any(dim=1)
        boxes.append(torch.stack([left, top, right, bottom], dim=1) * shown[:, None])
        labels.append(kinds[:, number] * shown)
    return {"target": torch.stack(boxes, dim=1).float(), "labels": torch.stack(labels, dim=1)}


def _detection(params: ShapesParams, whole: Batch) -> LoadedData:
    train, validation, test = parts(whole, params)
    target, labels = detection_target(params.shapes, len(CLASSES) - 1)
    info = DataInfo(Field((3, params.size, params.size)), target, {"labels": labels})
    return LoadedData(train, validation, info, digest_of(whole), "shapes", classes=CLASSES[1:], test=test)


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
    summary="Made-up pictures of circles, squares and triangles: the class of each pixel, boxes, or their kinds",
    source="Epochal's own",
    params=ShapesParams,
    build=build,
    task="segmentation",
)
