"""569 breast tumours by 30 measurements of cell nuclei: malignant (0) or benign (1)."""

from __future__ import annotations

from pathlib import Path

import torch

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.bundled import read_bundled
from epochal.catalog.datasets.in_memory import Arrays, PartitionParams, digest_of, held_out, loaded, standardized
from epochal.catalog.entry import Dataset


def build(params: PartitionParams, folder: Path) -> LoadedData:
    """input: (30,), standardised; target: 0 malignant, 1 benign."""
    rows = torch.from_numpy(read_bundled("breast_cancer.csv", skip_rows=1))
    arrays = Arrays(rows[:, :-1].to(torch.float32), rows[:, -1].to(torch.int64), classes=2)
    parts = standardized(*held_out(arrays, params))
    return loaded(*parts, source="scikit-learn breast_cancer", digest=digest_of(arrays.batch()))


ENTRY = Dataset(
    summary="569 tumours by 30 measurements of cell nuclei, malignant or benign",
    source="https://archive.ics.uci.edu/dataset/17/breast+cancer+wisconsin+diagnostic",
    params=PartitionParams,
    build=build,
    task="classification",
)
