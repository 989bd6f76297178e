"""Tables and arrays as people have them: read right, or refused by file, column and row."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epochal.catalog.build import load_data
from epochal.catalog.data import Batch, LoadedData, Split
from epochal.catalog.datasets.files import reading
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError
from epochal.spec.section import Component


def _load(folder: Path, content: str | bytes, target: str = "y", name: str = "t.csv", **params: Any) -> LoadedData:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_data(Component(name="csv", params={"path": name, "target": target, "validation": 0, **params}), folder)


def _batch(split: Split | None) -> Batch:
    assert split is not None
    return split.fetch(range(len(split)))


def _taken(data: LoadedData) -> dict[str, Understood]:
    return {one.name: one for one in data.understood}


def _values(data: LoadedData) -> list[float]:
    """The first feature, which was not standardised."""
    return _batch(data.train)["input"][:, 0].tolist()  # type: ignore[no-any-return]


FOUR = [1.0, 2.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("content", "params"),
    [
        ("a,y\n1,p\n2,q\n4,p\n5,q\n", {}),
        ("a;y\n1;p\n2;q\n4;p\n5;q\n", {}),
        ("a\ty\n1\tp\n2\tq\n4\tp\n5\tq\n", {}),
        ("a|y\r\n1|p\r\n2|q\r\n4|p\r\n5|q\r\n", {}),
        ("a:y\n1:p\n2:q\n4:p\n5:q\n", {"delimiter": ":"}),
        ("a;y\n1,0;p\n2,0;q\n4,00;p\n5;q\n", {}),
        ("\ufeffa,y\n1,p\n2,q\n4,p\n5,q\n", {}),
        ("a,y\n1,p\n2,q\n4,p\n5,q\n".encode("utf-16"), {}),
        ("a,y\n 1,p\n+2,q\n4.,p\n.5e1,q\n", {}),
        ("\na,y\n1,p\n2,q\n4,p\n5,q", {}),
        (gzip.compress(b"a,y\n1,p\n2,q\n4,p\n5,q\n", mtime=0), {"name": "t.csv.gz"}),
    ],
)
def test_a_table_is_read_as_it_was_meant(tmp_path: Path, content: str | bytes, params: dict[str, Any]) -> None:
    assert _values(_load(tmp_path, content, standardize=False, **params)) == FOUR


@pytest.mark.parametrize(
    ("cells", "delimiter", "params", "expected"),
    [
        (['"1,037"', "12", '"2,000,000"'], ",", {}, [1037, 12, 2_000_000]),
        (["1,037", "12,5", "2.000,5"], ";", {}, [1.037, 12.5, 2000.5]),
        (["1,037", "2,041", "3,000"], ";", {}, [1.037, 2.041, 3.0]),
        (["1,037", "2,041", "3,000"], ";", {"decimal": "."}, [1037, 2041, 3000]),
        (["1.037", "0.942", "3.000"], ";", {}, [1.037, 0.942, 3.0]),
        (["1.037", "942", "3.000"], ";", {"decimal": ","}, [1037, 942, 3000]),
        (["1 037", "12", "1'000"], ",", {}, [1037, 12, 1000]),
        (['"3,14"', '"2,5"', "1"], ",", {}, [3.14, 2.5, 1]),
        (["99999999999999999999", "1", "2"], ",", {}, [1e20, 1, 2]),
    ],
)
def test_marks_of_decimals_and_thousands(
    tmp_path: Path, cells: list[str], delimiter: str, params: dict[str, Any], expected: list[float]
) -> None:
    rows = [f"{cell}{delimiter}{'pq'[index % 2]}" for index, cell in enumerate(cells)]
    data = _load(tmp_path, "\n".join([f"a{delimiter}y", *rows]), standardize=False, **params)
    assert _values(data) == pytest.approx(expected)
    if any(mark in cell for cell in cells for mark in ",' "):
        assert f" read as {expected[0]:.15g}" in _taken(data)["a"].note


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["10%", "12 %", "5.5%"], [10, 12, 5.5]),
        (["-3%", "+5%", "1,200%"], [-3, 5, 1200]),
        (["$1,200", "$5", "-$3"], [1200, 5, -3]),
        (["$ 5", "$0.50", "$7"], [5, 0.5, 7]),
        (["€5", "6 €", "7\u00a0€"], [5, 6, 7]),
        (["€1.200,50", "€2,75", "€3"], [1200.5, 2.75, 3]),
        (["£5", "£6", "£1 200"], [5, 6, 1200]),
        (["¥5", "x", "y"], None),
        (["5‰", "7‰", "1‰"], [5, 7, 1]),
        (["$", "$$", "$$$"], None),
        (["5%%", "6%%", "7%%"], None),
        (["3$5", "4$5", "5$5"], None),
    ],
)
def test_numbers_with_one_sign_are_numbers_and_it_is_told(
    tmp_path: Path, cells: list[str], expected: list[float] | None
) -> None:
    rows = [f'"{cell}",{"pq"[index % 2]}' for index, cell in enumerate(cells)]
    data = _load(tmp_path, "\n".join(["a,y", *rows]), standardize=False)
    taken = _taken(data)["a"]
    if expected is None:
        assert (taken.taken_for, data.info.input.shape) == ("category", (3,))
    else:
        assert _values(data) == pytest.approx(expected)
        assert (taken.taken_for, taken.note) == ("number", f"{cells[0]!r} read as {expected[0]:.15g}")


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["10%", "12%", "5"], "(column 'a', row 4): found '5', expected a number with %, as in 2 of 3 cells"),
        (["10", "12", "5%"], "(column 'a', row 4): found '5%', expected a number, as in 2 of 3 cells"),
        (["$5", "€6", "$7"], "(column 'a', row 3): found '€6', expected a number with $"),
        (["$5", "€6"], "expected a number with"),
        (["¥5", "₹6", "x"], "(column 'a', rows 3, 4): found '₹6', 'x', expected a number with ¥"),
        (["$5", "free", "$7"], "(column 'a', row 3): found 'free', expected a number with $"),
    ],
)
def test_signs_that_differ_are_refused_and_never_categories(tmp_path: Path, cells: list[str], said: str) -> None:
    rows = [f"{cell},{'pq'[index % 2]}" for index, cell in enumerate(cells)]
    with pytest.raises(EpochalError) as caught:
        _load(tmp_path, "\n".join(["a,y", *rows]))
    assert said in str(caught.value)


def test_a_target_with_a_sign_is_real(tmp_path: Path) -> None:
    data = _load(tmp_path, "a,y\n1,$10\n2,$20\n3,$10\n")
    assert data.info.target.classes is None
    assert _taken(data)["y"].note.startswith("'$10' read as 10")


@pytest.mark.parametrize(
    ("cells", "note"),
    [
        (["2024-01-01", "2024-01-02", "2024-01-02 10:00"], "dates, each a category"),
        (["31/12/2024", "1.1.2025", "2/1/2025"], "dates, each a category"),
        (["5 kg", "6 kg", "7kg"], "numbers with a unit"),
        (["yes", "no", "yes"], "2 values: no, yes"),
        (["A-1-2", "B", "B"], "2 values: A-1-2, B"),
    ],
)
def test_text_that_may_be_meant_for_numbers_is_noted(tmp_path: Path, cells: list[str], note: str) -> None:
    data = _load(tmp_path, "\n".join(["a,y", *(f"{cell},{'pq'[index % 2]}" for index, cell in enumerate(cells))]))
    taken = _taken(data)["a"]
    assert taken.taken_for == "category"
    assert note in taken.note
    assert ("; " in taken.note) == ("values" not in note)


def test_more_dates_than_categories_are_refused_with_what_to_do(tmp_path: Path) -> None:
    rows = [f"{2000 + index % 25}-{1 + index // 25 % 12}-{1 + index % 7},{'pq'[index % 2]}" for index in range(300)]
    with pytest.raises(EpochalError) as caught:
        _load(tmp_path, "\n".join(["a,y", *rows]))
    assert "make a number of the dates" in str(caught.value)


@pytest.mark.parametrize("mark", ["", "?", "NA", "n/a", "N/A", "null", "NULL", "NaN", "None", "-", ".", " ? ", "#N/A"])
def test_a_missing_number_becomes_the_mean_and_is_told(tmp_path: Path, mark: str) -> None:
    data = _load(tmp_path, f"a,b,y\n1,1,p\n{mark},2,q\n5,3,p\n")
    assert _values(data)[1] == pytest.approx(0.0)
    taken = _taken(data)["a"]
    assert (taken.taken_for, taken.missing) == ("number", 1)
    assert "row 3 of t.csv become" in taken.note


def test_what_stands_for_a_missing_value_can_be_set(tmp_path: Path) -> None:
    data = _load(tmp_path, "a,y\n1,p\n-999,q\n5,p\n", missing=["-999"], standardize=False)
    assert _values(data) == [1, 3, 5]
    classes = _load(tmp_path, "a,y\n1,NA\n2,US\n5,NA\n", missing=[])
    assert "NA (2), US (1)" in _taken(classes)["y"].note


def test_plus_and_minus_are_classes(tmp_path: Path) -> None:
    assert _load(tmp_path, "a,y\n1,+\n2,-\n5,+\n").info.target.classes == 2


def test_a_missing_text_is_a_category_of_its_own(tmp_path: Path) -> None:
    data = _load(tmp_path, "a,y\nred,p\n,q\n?,p\nblue,q\n")
    assert data.info.input.shape == (3,)
    taken = _taken(data)["a"]
    assert (taken.taken_for, taken.missing, taken.note) == ("category", 2, "3 values: (missing), blue, red")


def test_numbers_can_be_categories(tmp_path: Path) -> None:
    data = _load(tmp_path, "zip,y\n00501,p\n10001,q\n10001,p\n", categories=["zip"])
    assert data.info.input.shape == (2,)
    assert _taken(data)["zip"].note == "2 values: 00501, 10001"


def test_what_a_table_was_taken_for(tmp_path: Path) -> None:
    data = _load(tmp_path, "id,a,b,y\n1,2.5,x,0.5\n2,3.5,z,1.5\n3,1,x,2\n", exclude=["id"])
    assert [(one.name, one.taken_for) for one in data.understood] == [
        ("t.csv", "table"),
        ("id", "left out"),
        ("a", "number"),
        ("b", "category"),
        ("y", "target, real"),
    ]
    assert data.understood[0].note == "3 rows, delimiter ',', encoding utf-8, decimal '.'"


def test_line_breaks_in_quotes_are_read_in_files_of_any_size(tmp_path: Path) -> None:
    rows = [f'{index},"{"x" * 60}\n{"y" * 60}",{"pq"[index % 2]}' for index in range(10_000)]
    assert len(_load(tmp_path, "\n".join(["a,note,y", *rows]), exclude=["note"]).train) == 10_000
    assert len(_load(tmp_path, f'a,note,y\n1,"{"x" * (3 << 20)}",p\n2,,q\n', exclude=["note"]).train) == 2


@pytest.mark.parametrize("offset", [0.0, 1.7e9, 1e13])
def test_an_offset_changes_nothing_once_standardised(tmp_path: Path, offset: float) -> None:
    rows = [f"{offset + index!r},{offset + index / 4!r}" for index in range(200)]
    batch = _batch(_load(tmp_path, "\n".join(["t,y", *rows]), target_kind="real").train)
    expected = (torch.arange(200.0) - 99.5) / torch.arange(200.0).std(correction=0)
    torch.testing.assert_close(batch["input"][:, 0], expected)
    torch.testing.assert_close(batch["target"], expected)


STAMPS = "\n".join(["t,y", *(f"{1_700_000_000 + index},{index / 2}" for index in range(100))])


@pytest.mark.parametrize(
    ("content", "params", "said"),
    [
        ("a,a,y\n1,2,p\n", {}, "(row 1): found 'a' as the name of more than one column"),
        ("a,y,y\n1,p,p\n", {}, "'y' as the name of more than one"),
        ("a,größe,y\n1,2,p\n".encode("latin-1"), {}, "the line reads 'a,größe,y'"),
        ("a,y\n1,p\n2,é\n".encode("latin-1"), {}, "(line 3): found b'\\xe9', expected text in UTF-8"),
        ("a,y\n1,p\n2,é\n".encode("latin-1"), {"encoding": "ascii"}, "expected text in ascii"),
        ("a,y\n1,p\n", {"encoding": "klingon"}, "unknown encoding: klingon"),
        ("a,y\n1,p\n".encode("utf-16-le"), {}, "found a zero byte, expected text"),
        (b"PK\x03\x04\x00\x00", {}, "save a spreadsheet as .csv"),
        ("a,y\n1,p\n2\n", {}, "Expected 2 columns, got 1"),
        ("a,y\n1,p\n2,p\nx5,q\n", {}, "(column 'a', row 4): found 'x5', expected a number, as in 2 of 3 cells"),
        ("a,y\n1,p\n2,p\ninf,q\n", {}, "(column 'a', row 4): found 'inf'"),
        ("a,y\n1,p\n1e400,q\n", {}, "(column 'a', row 3): found a number that is not finite"),
        ("a,b,y\n,1,p\n,2,q\n", {}, "(column 'a'): found no value"),
        ("a,y\n1,p\n2,\n", {}, "misses values of the target 'y' in 1 of 2 rows (row 3)"),
        ("a,y\n1,1\n2,2\n3,x\n", {}, "(column 'y', row 4): found 'x', expected a number"),
        ("a,y\n1,p\n", {"target": "z"}, "has no column 'z'; it has 'a', 'y'"),
        ('a,y\n1,p\n2,"q\n3,p\n4,q\n', {}, "(row 3): found a quotation mark that is never closed"),
        ("", {}, "cannot be read as a table"),
        (b"no gzip", {"name": "t.csv.gz"}, "t.csv.gz cannot be read as a table"),
        (b"no parquet", {"name": "t.parquet"}, "t.parquet cannot be read as a table"),
        (STAMPS, {"standardize": False}, "(column 't'): found values from 1.7e+09"),
        (STAMPS, {"target": "t", "target_kind": "real", "standardize_target": False}, "(column 't'): found values"),
        ("a,y\n1e300,p\n-1e300,q\n", {}, "(column 'a'): found values from -1e+300 to 1e+300, which float32 cannot"),
        ("a,y\n1e39,p\n0,q\n", {"standardize": False}, "(column 'a'): found values from 0 to 1e+39"),
    ],
)
def test_a_table_that_cannot_be_read_right_is_refused_by_name(
    tmp_path: Path, content: str | bytes, params: dict[str, Any], said: str
) -> None:
    with pytest.raises(EpochalError) as caught:
        _load(tmp_path, content, **params)
    assert str(tmp_path / params.get("name", "t.csv")) in str(caught.value)
    assert said in str(caught.value)


def test_numbers_in_one_table_and_text_in_the_other_are_refused_with_both_names(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("a,y\nred,p\n")
    with pytest.raises(EpochalError, match=r"column 'a': found numbers in .*t\.csv and text in .*val\.csv"):
        _load(tmp_path, "a,y\n1,p\n2,q\n", validation_path="val.csv")


def _arrays(folder: Path, x: Any, y: Any, **params: Any) -> LoadedData:
    np.savez(folder / "d.npz", x=x, y=y)
    return load_data(Component(name="npz", params={"path": "d.npz", "validation": 0, **params}), folder)


def test_labels_can_be_text_and_one_number_a_sample_is_one_feature(tmp_path: Path) -> None:
    data = _arrays(tmp_path, np.arange(4.0), np.array(["cat", "dog", "cat", "eel"]))
    assert data.info.input.shape == (1,)
    assert _batch(data.train)["target"].tolist() == [0, 1, 0, 2]
    assert [one.taken_for for one in data.understood] == ["input", "target, class"]


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.ones((2, 2), complex), np.arange(2), "(member x): found complex128, expected numbers"),
        (np.array(["a", "b"]), np.arange(2), "(member x): found <U1, expected numbers"),
        (np.ones((2, 1)), np.array(["2020-01-01", "2020-01-02"], "M8[D]"), "(member y): found datetime64[D]"),
        (np.array([[1.0], [np.nan]]), np.arange(2), "(member x, row 1): found 1 values that are missing"),
        (np.ones((2, 1)), np.array([np.inf, 1.0]), "(member y, row 0): found 1 values"),
        (np.float64(3), np.float64(2), "differ in length or are empty"),
        (1.7e9 + np.arange(100.0)[:, None], np.arange(100), "(member x): found values from 1.7e+09"),
        (np.ones((100, 1)), 1.7e9 + np.arange(100.0), "(member y): found values from 1.7e+09"),
        (np.array([[1e39], [0.0]]), np.arange(2), "float32 cannot hold"),
    ],
)
def test_arrays_that_cannot_be_read_right_are_refused_by_member(tmp_path: Path, x: Any, y: Any, said: str) -> None:
    with pytest.raises(EpochalError) as caught:
        _arrays(tmp_path, x, y)
    assert str(tmp_path / "d.npz") in str(caught.value)
    assert said in str(caught.value)


def test_whatever_a_reader_raises_names_the_file() -> None:
    with pytest.raises(EpochalError, match="a/b cannot be read: KeyError: 'z'"), reading(Path("a/b")):
        {}["z"]
