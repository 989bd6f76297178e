"""1,797 handwritten digits of 8x8 pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field as Bounds

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.bundled import read_bundled
from epochal.catalog.datasets.in_memory import Arrays, PartitionParams, digest_of, held_out, loaded
from epochal.catalog.entry import Dataset
from epochal.errors import EpochalError


class DigitsParams(PartitionParams):
    digits: Annotated[list[Annotated[int, Bounds(ge=0, le=9)]], Bounds(min_length=2)] = list(range(10))
    """Only these, which become the classes in this order."""
    per_class: Annotated[int, Bounds(ge=1)] | None = None
    """The most samples of a class to train on; null takes all that are not held out."""


def build(params: DigitsParams, folder: Path) -> LoadedData:
    """input: (1, 8, 8) from 0 to 1; target: the place of the digit in ``params.digits``."""
    if len(set(params.digits)) < len(params.digits):
        raise EpochalError(f"data.params.digits: {params.digits} names a digit twice", "name each once")
    rows = torch.from_numpy(read_bundled("digits.csv.gz"))
    wanted = torch.tensor(params.digits)
    rows = rows[torch.isin(rows[:, -1], wanted)]
    images = (rows[:, :-1] / 16).to(torch.float32).reshape(-1, 1, 8, 8)
    classes = (rows[:, -1:] == wanted).to(torch.int64).argmax(1)
    arrays = Arrays(images, classes, classes=len(wanted))
    parts = held_out(arrays, params)
    if params.per_class is not None:
        few = [(parts.train.target == one).nonzero().flatten()[: params.per_class] for one in range(len(wanted))]
        parts = parts._replace(train=parts.train.at(torch.cat(few).sort().values))
    data = loaded(*parts, source="scikit-learn digits", digest=digest_of(arrays.batch()))
    return replace(data, classes=tuple(map(str, params.digits)))


ENTRY = Dataset(
    summary="1,797 grey images of handwritten digits, 8x8 pixels, 10 classes",
    source="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    params=DigitsParams,
    build=build,
    task="classification",
)
