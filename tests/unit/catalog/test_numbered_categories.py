from __future__ import annotations

from pathlib import Path

import pytest
import torch

from epochal.catalog.build import build_model, load_data
from epochal.catalog.data import Field
from epochal.errors import SpecError
from epochal.spec.section import Component

TABLE = "size,colour,kind,label\n1,red,a,0\n2,blue,b,1\n3,red,,0\n4,green,b,1\n5,blue,a,0\n"


def table(folder: Path, text: str = TABLE, **params: object) -> Component:
    (folder / "t.csv").write_text(text)
    given = {"path": "t.csv", "target": "label", "categories_as": "numbers", "validation": 0, "standardize": False}
    return Component(name="csv", params={**given, **params})


def test_categories_are_numbered_through_over_the_columns(tmp_path: Path) -> None:
    data = load_data(table(tmp_path), tmp_path)
    assert (data.info.input, data.info.inputs) == (Field((1,)), ("input", "categories"))
    assert data.info.more == {"categories": Field((2,), torch.int64, 3 + 3)}
    batch = data.train.fetch(range(5))
    assert batch["input"].flatten().tolist() == [1, 2, 3, 4, 5]
    assert batch["categories"].tolist() == [[2, 4], [0, 5], [2, 3], [1, 5], [0, 4]]  # a missing one comes first


def test_both_parts_have_their_own(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text(TABLE.replace("green", "brown"))
    data = load_data(table(tmp_path, validation_path="v.csv"), tmp_path)
    assert data.validation is not None
    assert data.train.fetch([3])["categories"].tolist() == [[2, 6]]
    assert data.validation.fetch([3])["categories"].tolist() == [[1, 6]]


def test_a_table_of_categories_alone_has_no_numbers(tmp_path: Path) -> None:
    data = load_data(table(tmp_path, exclude=["size"]), tmp_path)
    assert data.info.input.shape == (0,)
    model = build_model(Component(name="tabular"), data.info)
    assert data.info.call(model, data.train.fetch([0, 1])).shape == (2, 2)


def test_without_a_category_mlp_is_named(tmp_path: Path) -> None:
    data = load_data(table(tmp_path, exclude=["colour", "kind"]), tmp_path)
    with pytest.raises(SpecError, match="use mlp"):
        build_model(Component(name="tabular"), data.info)


def test_more_of_them_than_columns_could_have(tmp_path: Path) -> None:
    rows = "".join(f"{i},c{i % 150},a,{i % 2}\n" for i in range(300))
    data = load_data(table(tmp_path, "size,colour,kind,label\n" + rows), tmp_path)
    assert data.info.more["categories"].classes == 151
    with pytest.raises(SpecError, match="150 different values, more than 100"):
        load_data(table(tmp_path, "size,colour,kind,label\n" + rows, categories_as="columns"), tmp_path)
