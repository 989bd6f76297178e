"""Tables as spreadsheets, pandas and R write them, and what is no table though its name says so."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from epochal.catalog.build import load_data
from epochal.catalog.data import LoadedData
from epochal.errors import EpochalError
from epochal.spec.section import Component


def _load(folder: Path, content: str | bytes, name: str = "t.csv", **params: Any) -> LoadedData:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_data(Component(name="csv", params={"path": name, "target": "y", "validation": 0, **params}), folder)


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\na;y\n1;p\n2;q\n4;p\n5;q\n",
        '\ufeff"sep=^"\r\na^y\r\n1^p\r\n2^q\r\n4^p\r\n5^q\r\n',
        "a,y,\n1,p,\n2,q,\n4,p,\n5,q,\n",
        "a;y;;;\n1;p;;;\n2;q;;;\n4;p;;;\n5;q;;;\n",
        "a, y\n1, p\n2, q\n4, p\n5, q\n",
        " a ;y \n1; p\n2;q \n4;p\n5;q\n",
        "a,y\r\n1,p\n2,q\r\n4,p\n5,q",
        "a,y\r1,p\r2,q\r4,p\r5,q\r",
        '"a","y"\n"1","p"\n"2","q"\n"4","p"\n"5","q"\n',
        ",a,y\n0,1,p\n1,2,q\n2,4,p\n3,5,q\n",
        "Unnamed: 0,a,y\n7,1,p\n1,2,q\n3,4,p\n4,5,q\n",
        '"","a","y"\n"Fiat",1,"p"\n"VW",2,"q"\n"BMW",4,"p"\n"Mini",5,"q"\n',
        "a,y\n1,p\n2,q\n4,p\n5,q\n".encode("utf-32"),
    ],
)
def test_it_is_the_same_table(tmp_path: Path, content: str | bytes) -> None:
    batch = _load(tmp_path, content, standardize=False).train.fetch(range(4))
    assert batch["input"].tolist() == [[1], [2], [4], [5]]
    assert batch["target"].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("content", "params", "name", "note"),
    [
        (",a,y\n17,1,p\n3,2,q\n8,4,p\n", {}, "(no name)", "an index: no name, and each value once"),
        ("car,a,y\nFiat,1,p\nVW,2,q\nBMW,4,p\n", {}, "car", "BMW, Fiat, VW; each in one row: names, to be left out"),
        (",a,y\n0.5,1,p\n1.5,2,q\n2.5,4,p\n", {}, "(no name)", ""),
        ("id,a,y\n1,1,p\n2,2,q\n3,4,p\n", {}, "id", "counts the rows from 1: an index, to be left out by"),
        (",a,y\n0,1,p\n1,2,q\n2,4,p\n", {"features": [""]}, "(no name)", "counts the rows from 0"),
        ("a,b,y\n7,1,p\n7,2,q\n", {}, "a", "always 7"),
        ("a,y\n00501,p\n10001,q\n", {}, "a", "'00501' read as 501: if these are codes, data.params.categories"),
        ("a,y\n0,p\n0.5,q\n", {}, "a", ""),
        ("a,y,\n1,p,\n2,q,\n", {}, "t.csv", "1 column without name and values left out"),
        ("a,y\n1,0.0\n2,1.0\n3,1.0\n", {}, "y", "whole numbers, 2 different ones: if they are classes"),
        ("a,y\n1,0.5\n2,1.0\n3,1.0\n", {}, "y", ""),
        ("a,y\n1,0.0\n2,1.0\n3,1.0\n", {"target_kind": "real"}, "y", ""),
        ("a,y\n" + "".join(f"1,{n}\n" for n in range(30)), {}, "y", "if it is a number to predict"),
        ("a,y\n" + "".join(f"1,{n % 9}\n" for n in range(30)), {}, "y", "6 (3), 7 (3) and 1 more"),
        ("a,y\n1, yes\n2,yes\n3,no\n", {}, "y", "2 classes: no (1), yes (2)"),
    ],
)
def test_what_a_person_may_not_have_meant_is_told(
    tmp_path: Path, content: str, params: dict[str, Any], name: str, note: str
) -> None:
    (told,) = [one.note for one in _load(tmp_path, content, **params).understood if one.name == name]
    assert note in told
    assert bool(told) == bool(note)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,y\n1,p\0\n", "(byte 7): found a zero byte, expected text"),
        (gzip.compress(b"a,y\n1,p\n", mtime=0), "have its name end in .gz"),
        (b"PAR1\x15\x04", "found Parquet, expected text"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "found an old spreadsheet"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html></html>\n", "are the columns' names in the first row?"),
        ("1.5,p\n2.5,q\n", "are the columns' names in the first row?"),
        ("# by Ada\na,y\n1,p\n", "Row #2: Expected 1 columns, got 2"),
        ("a,Y\n1,p\n", "did you mean 'Y'"),
        ("a,y\n1,p\n2,q,more\n", "Row #3: Expected 2 columns, got 3"),
        ("a,y\n", "has no rows"),
        ("a,y", "cannot be read as a table"),
        (" \n \n", "has no column 'y'"),
        (f"a,y\n{2**60},p\n{2**60 + 1},q\n", "(column 'a'): found whole numbers so large"),
    ],
)
def test_what_is_no_table_is_refused_with_what_it_is(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(EpochalError) as caught:
        _load(tmp_path, content)
    assert str(tmp_path / "t.csv") in str(caught.value)
    assert said in str(caught.value)
