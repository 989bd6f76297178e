"""Shards of an object store."""

from __future__ import annotations

import tarfile
from itertools import islice
from pathlib import Path

import fsspec
import numpy as np
import pytest

import local_s3
from epochal.catalog.build import load_data
from epochal.catalog.data import LoadedData
from epochal.errors import SpecError
from epochal.spec.section import Component


def loaded(path: str) -> LoadedData:
    params = {"path": path, "input": "x.npy", "target": "y.npy", "classes": None}
    return load_data(Component(name="webdataset", params=params), Path("/"))


def values(data: LoadedData) -> list[float]:
    assert data.stream is not None
    return [float(read.sample["input"][0]) for read in islice(data.stream.read(1, 2, 7, None), 12) if read.sample]


def test_shards_are_read_from_s3(tmp_path: Path) -> None:
    for shard in range(3):
        with tarfile.open(tmp_path / f"train-{shard}.tar", "w") as archive:
            for sample in range(4 + shard):
                np.save(tmp_path / "one.npy", np.array([10.0 * shard + sample]))
                for suffix in ("x.npy", "y.npy"):
                    archive.add(tmp_path / "one.npy", f"{sample}.{suffix}")
    with local_s3.bucket() as bucket:
        fsspec.filesystem("s3").put(str(tmp_path / "train-*.tar"), f"{bucket}/shards/")
        here, there = (loaded(f"{root}/train-*.tar") for root in (tmp_path, f"{bucket}/shards"))
        assert there.source == f"{bucket}/shards/train-*.tar"
        assert values(here) == values(there)
        assert len(values(there)) == 12
        with pytest.raises(SpecError, match=r"none-\*\.tar stands for no file"):
            loaded(f"{bucket}/none-*.tar")
