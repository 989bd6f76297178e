from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from epochal.catalog.build import load_data
from epochal.catalog.data import Field
from epochal.catalog.datasets.idx import TYPES, read_idx
from epochal.errors import EpochalError, SpecError
from epochal.spec.section import Component


def write(file: Path, values: np.ndarray, kind: int = 8, packed: bool = False) -> Path:
    head = bytes([0, 0, kind, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    data = head + values.astype(TYPES[kind]).tobytes()
    file.write_bytes(gzip.compress(data) if packed else data)
    return file


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("kind", TYPES)
def test_numbers_of_every_type_are_read(tmp_path: Path, kind: int, packed: bool) -> None:
    values = np.arange(12).reshape(3, 2, 2)
    read = read_idx(write(tmp_path / "a", values, kind, packed))
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, values)


def mnist(folder: Path) -> Component:
    write(folder / "train-images-idx3-ubyte.gz", np.full((20, 3, 2), 255), packed=True)
    write(folder / "train-labels-idx1-ubyte", 1 + np.arange(20) % 2)  # EMNIST's letters count from 1
    write(folder / "t10k-images-idx3-ubyte.gz", np.zeros((2, 3, 2)), packed=True)
    return Component(name="idx", params={"path": "."})


def test_pictures_are_from_0_to_1_and_classes_from_0(tmp_path: Path) -> None:
    data = load_data(mnist(tmp_path), tmp_path)
    assert (data.info.input, data.info.target.classes, data.classes) == (Field((1, 3, 2)), 2, ("1", "2"))
    assert data.train.fetch([0])["input"].flatten().tolist() == [1.0] * 6
    assert data.understood[-1].taken_for == "left out"


def test_what_is_not_whole_is_told(tmp_path: Path) -> None:
    component = mnist(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1])
    with pytest.raises(SpecError, match="19 bytes of numbers, expected 20"):
        load_data(component, tmp_path)
    write(labels, np.zeros(19))
    with pytest.raises(SpecError, match=r"shape \(20, 3, 2\) and train-labels-idx1-ubyte \(19,\)"):
        load_data(component, tmp_path)
    labels.write_bytes(b"\x89PNG")
    with pytest.raises(SpecError, match="found 89 50 4e 47"):
        load_data(component, tmp_path)
    labels.unlink()
    with pytest.raises(SpecError, match="expected one train-labels-idx"):
        load_data(component, tmp_path)
    (tmp_path / "a.gz").write_bytes(b"\x1f\x8bnot")
    with pytest.raises(EpochalError, match="cannot be read as IDX"):
        read_idx(tmp_path / "a.gz")
