"""Parquet and arrays, whose columns know their types: each type is read as the same numbers, or refused by its name."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from epochal.catalog.build import load_data
from epochal.catalog.data import LoadedData
from epochal.errors import EpochalError
from epochal.spec.section import Component

FOUR = [1.0, 2.0, 4.0, 5.0]


def _parquet(folder: Path, **columns: Any) -> LoadedData:
    file = io.BytesIO()
    parquet.write_table(pa.table({"y": ["p", "q", "p", "q"], **columns}), file)
    (folder / "t.parquet").write_bytes(file.getvalue())
    params = {"path": "t.parquet", "target": "y", "validation": 0, "standardize": False}
    return load_data(Component(name="csv", params=params), folder)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(np.array(FOUR, np.float16)),
        pa.array([Decimal("1.00"), Decimal("2.00"), Decimal("4.00"), Decimal("5.00")]),
        pa.array([1, 2, 4, 5], pa.uint64()),
        pa.array([1, 2, 4, 5], pa.int8()).dictionary_encode(),
        pa.array(["1", "2", "4", "5"]).dictionary_encode(),
        pa.array(["1", "2", "4", "5"], pa.large_string()),
        pa.array(["1", "2", "4", "5"], pa.string_view()),
    ],
    ids=["half", "decimal", "uint64", "int-category", "text-category", "large-text", "text-view"],
)
def test_numbers_of_any_type_of_parquet(tmp_path: Path, column: Any) -> None:
    assert _parquet(tmp_path, a=column).train.fetch(range(4))["input"][:, 0].tolist() == FOUR


@pytest.mark.parametrize("type", [pa.int64(), pa.uint64()], ids=str)
def test_whole_numbers_that_float64_cannot_tell_apart(tmp_path: Path, type: pa.DataType) -> None:
    ids = pa.array([2**60 + index for index in range(4)], type)
    with pytest.raises(EpochalError, match=r"t\.parquet \(column 'a'\): found whole numbers so large"):
        _parquet(tmp_path, a=ids)
    parquet.write_table(pa.table({"a": FOUR, "y": ids}), tmp_path / "t.parquet")
    params = {"path": "t.parquet", "target": "y", "validation": 0}
    assert load_data(Component(name="csv", params=params), tmp_path).info.target.classes == 4


def test_the_index_that_pandas_hides_in_parquet_is_no_feature(tmp_path: Path) -> None:
    data = _parquet(tmp_path, a=FOUR, __index_level_0__=[3, 7, 1, 2])
    assert data.info.input.shape == (1,)
    assert data.understood[0].note == "4 rows, parquet, the index of pandas left out"


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (pa.array([[1.0], [2.0], [], None]), "found list<"),
        (pa.array([{"u": 1}] * 4), "found struct<"),
        (pa.array([b"u"] * 4), "found binary"),
        (pa.array([1.0, np.inf, 2.0, 3.0]), "found a number that is not finite"),
        (pa.nulls(4), "found no value"),
    ],
    ids=["list", "struct", "binary", "inf", "null"],
)
def test_a_column_of_parquet_that_is_no_number_nor_text_is_named(tmp_path: Path, column: Any, found: str) -> None:
    with pytest.raises(EpochalError, match=r"t\.parquet \(column 'a'") as caught:
        _parquet(tmp_path, a=column)
    assert found in str(caught.value)


def _arrays(folder: Path, x: Any, y: Any) -> LoadedData:
    np.savez(folder / "d.npz", x=x, y=y)
    return load_data(Component(name="npz", params={"path": "d.npz", "validation": 0}), folder)


def test_classes_that_are_bytes_have_names_of_letters(tmp_path: Path) -> None:
    assert _arrays(tmp_path, np.eye(2), np.array([b"a", "é".encode()])).classes == ("a", "é")
    with pytest.raises(EpochalError, match="utf-8"):
        _arrays(tmp_path, np.eye(2), np.array([b"a", b"\xff"]))


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.asfortranarray(np.eye(4)), np.arange(4) % 2),
        (np.eye(4, dtype=">f8"), np.array([0, 1, 0, 1], ">i4")),
        (np.eye(4, dtype=np.float16), np.array([0, 1, 0, 1], np.uint8)),
        (np.eye(4, dtype=np.longdouble), np.array([1, 2, 1, 2])),
        (np.eye(4, dtype=bool), np.array([False, True, False, True])),
        (np.eye(4, dtype=np.int8), np.array([[0], [1], [0], [1]])),
        (np.eye(4), np.array([2**63, 2**63 + 1] * 2, np.uint64)),
        (np.eye(4), np.array([b"a", b"b", b"a", b"b"])),
    ],
    ids=["fortran", "big-endian", "float16", "longdouble", "bool", "column", "uint64", "bytes"],
)
def test_arrays_of_any_layout_are_the_same_numbers(tmp_path: Path, x: Any, y: Any) -> None:
    batch = _arrays(tmp_path, x, y).train.fetch(range(4))
    assert torch.equal(batch["input"], torch.eye(4))
    assert batch["target"].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (
            np.ones((4, 8, 8, 3), np.uint8),
            np.arange(4) % 2,
            "x: uint8, shape (4, 8, 8, 3); if these are pictures, channels",
        ),
        (np.ones((4, 3, 8, 8), np.uint8), np.arange(4) % 2, "x: uint8, shape (4, 3, 8, 8)"),
        (np.ones((4, 1)), np.arange(4) % 2, "y: int64, shape (4,); 2 classes: 0 (2), 1 (2)"),
        (np.ones((4, 1)), np.arange(4.0) % 2, "y: float64, shape (4,); whole numbers, 2 different ones"),
        (
            np.ones((4, 1)),
            np.eye(2)[[0, 1, 0, 1]],
            "shape (4, 2); if these are classes, save y.argmax(axis=1)",
        ),
        (np.ones((40, 1)), np.arange(40), "6 (1), 7 (1) and 32 more; if it is a number to predict"),
    ],
    ids=["channels-last", "channels-first", "classes", "whole", "one-hot", "numbers"],
)
def test_what_arrays_were_taken_for(tmp_path: Path, x: Any, y: Any, told: str) -> None:
    assert told in "\n".join(f"{one.name}: {one.note}" for one in _arrays(tmp_path, x, y).understood)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.ones((0, 2)), np.arange(0), "differ in length or are empty"),
        (np.ones((2, 2)), np.eye(2, dtype=int), "(member y): found the shape (2, 2), expected one class a sample"),
        (np.ones((2, 1)), np.array(["a", "b"], object), "without pickled objects"),
        (np.zeros(2, [("a", "f4")]), np.arange(2), "(member x): found [('a', '<f4')], expected numbers"),
        (np.array(["2020-01-01"] * 2, "M8[D]"), np.arange(2), "(member x): found datetime64[D]"),
    ],
    ids=["none", "one-hot", "objects", "records", "dates"],
)
def test_arrays_that_are_no_samples_are_refused_by_member(tmp_path: Path, x: Any, y: Any, said: str) -> None:
    with pytest.raises(EpochalError, match=r"d\.npz") as caught:
        _arrays(tmp_path, x, y)
    assert said in str(caught.value)
