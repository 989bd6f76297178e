"""178 wines from three growers, by 13 chemical measurements."""

from __future__ import annotations

from pathlib import Path

import torch

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.bundled import read_bundled
from epochal.catalog.datasets.in_memory import Arrays, PartitionParams, digest_of, held_out, loaded, standardized
from epochal.catalog.entry import Dataset


def build(params: PartitionParams, folder: Path) -> LoadedData:
    """input: (13,), standardised; target: the grower."""
    rows = torch.from_numpy(read_bundled("wine_data.csv", skip_rows=1))
    arrays = Arrays(rows[:, :-1].to(torch.float32), rows[:, -1].to(torch.int64), classes=3)
    parts = standardized(*held_out(arrays, params))
    return loaded(*parts, source="scikit-learn wine", digest=digest_of(arrays.batch()))


ENTRY = Dataset(
    summary="178 wines by 13 chemical measurements, 3 growers",
    source="https://archive.ics.uci.edu/dataset/109/wine",
    params=PartitionParams,
    build=build,
    task="classification",
)
