"""442 patients by 10 measurements, and how far their diabetes went within a year."""

from __future__ import annotations

from pathlib import Path

import torch

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.bundled import read_bundled
from epochal.catalog.datasets.in_memory import Arrays, PartitionParams, digest_of, held_out, loaded, standardized
from epochal.catalog.entry import Dataset


class DiabetesParams(PartitionParams):
    standardize_target: bool = True
    """Shift and scale the target too; mae and rmse are then in standard deviations (about 77 points)."""


def build(params: DiabetesParams, folder: Path) -> LoadedData:
    """input: (10,), standardised; target: one value."""
    features = torch.from_numpy(read_bundled("diabetes_data_raw.csv.gz", delimiter=None)).to(torch.float32)
    progress = torch.from_numpy(read_bundled("diabetes_target.csv.gz", delimiter=None)).to(torch.float32)
    arrays = Arrays(features, progress.flatten(), classes=None)
    parts = standardized(*held_out(arrays, params), target=params.standardize_target)
    return loaded(*parts, source="scikit-learn diabetes", digest=digest_of(arrays.batch()))


ENTRY = Dataset(
    summary="442 patients by 10 measurements; the target is the disease's progress after a year",
    source="Efron et al. 2004, Least angle regression, https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html",
    params=DiabetesParams,
    build=build,
    task="regression",
)
