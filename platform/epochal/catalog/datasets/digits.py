"""1,797 handwritten digits of 8x8 pixels."""

from __future__ import annotations

from pathlib import Path

import torch

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.bundled import read_bundled
from epochal.catalog.datasets.in_memory import Arrays, PartitionParams, digest_of, held_out, loaded
from epochal.catalog.entry import Dataset


def build(params: PartitionParams, folder: Path) -> LoadedData:
    """input: (1, 8, 8) from 0 to 1; target: the digit."""
    rows = torch.from_numpy(read_bundled("digits.csv.gz"))
    images = (rows[:, :-1] / 16).to(torch.float32).reshape(-1, 1, 8, 8)
    arrays = Arrays(images, rows[:, -1].to(torch.int64), classes=10)
    return loaded(*held_out(arrays, params), source="scikit-learn digits", digest=digest_of(arrays.batch()))


ENTRY = Dataset(
    summary="1,797 grey images of handwritten digits, 8x8 pixels, 10 classes",
    source="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    params=PartitionParams,
    build=build,
    task="classification",
)
