"""Datasets from the user's own files: what they read, and what they say where they cannot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import csv, parquet

from epochal.catalog.build import load_data
from epochal.catalog.data import Batch, LoadedData, Split
from epochal.catalog.datasets.partition import partition
from epochal.errors import SpecError
from epochal.spec.section import Component


def _load(name: str, folder: Path, **params: Any) -> LoadedData:
    return load_data(Component(name=name, params=params), folder)


def _refused(name: str, folder: Path, **params: Any) -> str:
    with pytest.raises(SpecError) as caught:
        _load(name, folder, **params)
    assert caught.value.problems[0].path == "data"
    return str(caught.value)


def _all(split: Split | None) -> Batch:
    assert split is not None
    return split.fetch(range(len(split)))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [f"{i},{i / 2},{'red' if i % 2 else 'blue'},{'yes' if i % 4 else 'no'},{i * 3.5}" for i in range(40)]
    (tmp_path / "table.csv").write_text("\n".join(["id,size,colour,answer,price", *rows]))
    return tmp_path


def test_a_table_becomes_numbers_and_classes(table: Path) -> None:
    data = _load("csv", table, path="table.csv", target="answer", exclude=["id", "price"])
    assert data.info.input.shape == (3,)  # size, colour blue, colour red
    assert data.info.target.classes == 2
    train = _all(data.train)
    torch.testing.assert_close(train["input"].mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(train["input"].std(0, correction=0), torch.ones(3))
    assert train["target"].bincount().tolist() == [8, 24]  # of each class four fifths


def test_a_real_target_is_standardised_unless_told_otherwise(table: Path) -> None:
    data = _load("csv", table, path="table.csv", target="price", features=["size"])
    assert data.info.target.classes is None
    assert _all(data.train)["target"].std(correction=0) == pytest.approx(1.0)
    raw = _load("csv", table, path="table.csv", target="price", standardize_target=False, standardize=False)
    assert _all(raw.train)["target"].max() > 100


@pytest.mark.parametrize(("start", "step"), [(1e8, 1.0), (-1e12, 0.25), (1e-20, 1e-21)])
def test_values_that_differ_by_little_stay_apart(tmp_path: Path, start: float, step: float) -> None:
    """In float32 the ten values from 1e8 on are two."""
    column = start + step * (np.arange(100.0) % 10)
    rows = [f"{value!r},{start + 0.1!r},{value!r}" for value in column.tolist()]
    (tmp_path / "far.csv").write_text("\n".join(["a,same,b", *rows]))
    np.savez(tmp_path / "far.npz", x=column[:, None], y=np.arange(100) % 2)
    table = _load("csv", tmp_path, path="far.csv", target="b", target_kind="real", validation=0)
    array = _load("npz", tmp_path, path="far.npz", standardize=True, validation=0)
    expected = torch.from_numpy((column - column.mean()) / column.std()).float()
    for values in (_all(table.train)["input"][:, 0], _all(table.train)["target"], _all(array.train)["input"][:, 0]):
        assert values.unique().numel() == 10
        torch.testing.assert_close(values, expected)
    assert _all(table.train)["input"][:, 1].unique().tolist() == [0.0]


def test_parquet_gives_what_csv_gives(table: Path) -> None:
    parquet.write_table(csv.read_csv(table / "table.csv"), table / "table.parquet")
    from_csv = _load("csv", table, path="table.csv", target="answer")
    from_parquet = _load("csv", table, path=str(table / "table.parquet"), target="answer")
    assert from_csv.digest == from_parquet.digest


def test_a_file_for_validation_shares_categories_and_scaling(table: Path) -> None:
    (table / "val.csv").write_text("id,size,colour,answer,price\n1,0,green,no,1\n2,19.5,red,yes,2\n")
    data = _load("csv", table, path="table.csv", validation_path="val.csv", target="answer", exclude=["id", "price"])
    assert data.info.input.shape == (4,)  # size, blue, green, red
    assert len(data.train) == 40
    assert _all(data.validation)["target"].tolist() == [0, 1]
    assert _all(data.validation)["input"][:, 2].tolist() == [1.0, 0.0]  # green never changes in training: not scaled


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"path": "no.csv", "target": "answer"}, "no.csv does not exist"),
        ({"path": "table.csv", "target": "answr"}, "did you mean 'answer'"),
        ({"path": "table.csv", "target": "answer", "features": ["sise"]}, "no column 'sise'"),
        ({"path": "table.csv", "target": "answer", "exclude": ["other"]}, "no column 'other'"),
        ({"path": "table.csv", "target": "answer", "features": ["answer"]}, "no column is left"),
        ({"path": "table.csv", "target": "answer", "target_kind": "real"}, "is text, not a real value"),
        ({"path": "holes.csv", "target": "b"}, "misses values of the target 'b' in 2 of 3 rows (rows 2, 4)"),
        ({"path": "names.csv", "target": "b"}, "the text column 'a' has 101 different values"),
        ({"path": "header.csv", "target": "b"}, "has no rows"),
        ({"path": "ragged.csv", "target": "b"}, "cannot be read as a table"),
        ({"path": ".", "target": "b"}, "cannot be read as a table"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(table: Path, params: dict[str, Any], said: str) -> None:
    (table / "holes.csv").write_text("a,b,c\n1,,x\n,2,y\n3,,z\n")
    (table / "names.csv").write_text("a,b\n" + "\n".join(f"name{i},{i % 2}" for i in range(101)))
    (table / "header.csv").write_text("a,b\n")
    (table / "ragged.csv").write_text("a,b\n1\n1,2,3\n")
    assert said in _refused("csv", table, **params)


def _npz(folder: Path, **arrays: np.ndarray[Any, Any]) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder


def test_arrays_become_images_with_numbered_classes(tmp_path: Path) -> None:
    _npz(tmp_path, x=np.full((10, 3, 4, 4), 255, np.uint8), y=np.array([5, 9] * 5))
    data = _load("npz", tmp_path, path="data.npz", scale=1 / 255)
    assert data.info.input.shape == (3, 4, 4)
    assert _all(data.train)["input"].max() == pytest.approx(1.0)
    assert set(_all(data.train)["target"].tolist()) == {0, 1}


def test_arrays_can_be_tokens_or_real_targets_and_have_their_own_validation(tmp_path: Path) -> None:
    _npz(tmp_path, x=np.arange(20).reshape(5, 4), y=np.ones((5, 2)), x_val=np.full((2, 4), 30), y_val=np.ones((2, 2)))
    data = _load("npz", tmp_path, path="data.npz", input_kind="tokens")
    assert data.info.input.classes == 31
    assert data.info.input.dtype == torch.int64
    assert data.info.target.shape == (2,)
    assert (len(data.train), len(data.validation or ())) == (5, 2)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.ones(3)}, "needs arrays x and y"),
        ({"x": np.ones((3, 2)), "y": np.ones(4)}, "differ in length"),
        ({"x": np.ones((0, 2)), "y": np.ones(0)}, "are empty"),
        ({"x": np.ones((3, 2)), "y": np.ones((3, 2), int)}, "expected one class a sample: (samples,)"),
        ({"x": np.ones((3, 2)), "y": np.array([{}, {}, {}])}, "without pickled objects"),
    ],
)
def test_arrays_that_cannot_be_used_say_why(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    assert said in _refused("npz", _npz(tmp_path, **arrays), path="data.npz")


def test_a_file_that_is_no_npz_says_so(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_text("hello")
    assert "cannot be read as an .npz file" in _refused("npz", tmp_path, path="data.npz")
    np.save(tmp_path / "one.npy", np.ones(3))
    assert "found one array, expected an .npz file" in _refused("npz", tmp_path, path="one.npy")


def _images(root: Path, *classes: str, count: int = 5) -> None:
    for label in classes:
        (root / label).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.new("RGB", (6, 4), (200, 100, index)).save(root / label / f"{index}.png")


def test_images_are_resized_and_scaled(tmp_path: Path) -> None:
    _images(tmp_path / "pets", "cat", "dog")
    data = _load("image-folder", tmp_path, path="pets", size=[3, 5])
    batch = _all(data.train)
    assert batch["input"].shape == (8, 3, 3, 5)
    assert batch["input"][0, :, 0, 0].tolist() == pytest.approx([200 / 255, 100 / 255, 0], abs=0.02)
    assert batch["target"].bincount().tolist() == [4, 4]
    grey = _load("image-folder", tmp_path, path="pets", mode="grayscale")
    assert grey.info.input.shape == (1, 32, 32)


def test_folders_train_and_val_are_kept_apart(tmp_path: Path) -> None:
    _images(tmp_path / "train", "cat", "dog", count=3)
    _images(tmp_path / "val", "cat", "dog", count=2)
    data = _load("image-folder", tmp_path, path=".")
    assert (len(data.train), len(data.validation or ())) == (6, 4)
    assert _all(data.validation)["target"].tolist() == [0, 0, 1, 1]


def test_the_digest_changes_with_a_file(tmp_path: Path) -> None:
    _images(tmp_path / "pets", "cat", "dog")
    before = _load("image-folder", tmp_path, path="pets").digest
    Image.new("RGB", (60, 40)).save(tmp_path / "pets" / "cat" / "0.png")
    assert _load("image-folder", tmp_path, path="pets").digest != before


def test_image_folders_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    _images(tmp_path / "one", "cat")
    _images(tmp_path / "empty", "cat", "dog")
    (tmp_path / "empty" / "eel").mkdir()
    _images(tmp_path / "apart" / "train", "cat", "dog")
    _images(tmp_path / "apart" / "val", "cat", "eel")
    assert "does not exist" in _refused("image-folder", tmp_path, path="none")
    assert "two classes or more, and has 1" in _refused("image-folder", tmp_path, path="one")
    assert "eel has no images" in _refused("image-folder", tmp_path, path="empty")
    assert "lack: eel" in _refused("image-folder", tmp_path, path="apart")


def test_what_systems_and_programs_leave_beside_pictures_is_no_sample(tmp_path: Path) -> None:
    _images(tmp_path, "cat", "dog", count=3)
    for leftover in ("._0.png", ".DS_Store", "Thumbs.db", "notes.txt"):
        (tmp_path / "cat" / leftover).write_bytes(b"x")
    for folder in (".ipynb_checkpoints", "__MACOSX"):
        _images(tmp_path / folder, "cat")
        _images(tmp_path / "dog" / folder, "cat")
    (tmp_path / "dog" / "0.png").rename(tmp_path / "dog" / "0.PNG")
    (tmp_path / "dog" / "again").symlink_to(tmp_path / "dog")
    data = _load("image-folder", tmp_path, path=".", validation=0.0)
    assert len(data.train) == 6
    assert [(one.name, one.taken_for, one.note) for one in data.understood] == [
        ("cat", "class", "3 to train on, 0 to validate"),
        ("dog", "class", "3 to train on, 0 to validate"),
        ("4 others", "left out", ".DS_Store, ._0.png, Thumbs.db, notes.txt"),
    ]


@pytest.mark.parametrize("val", ["val", "valid", "Validation", "dev"])
def test_a_split_is_known_by_its_names(tmp_path: Path, val: str) -> None:
    _images(tmp_path / "unpacked" / "Train", "cat", "dog", count=3)
    _images(tmp_path / "unpacked" / val, "cat", count=2)
    _images(tmp_path / "unpacked" / "test", "cat", "dog", count=9)
    data = _load("image-folder", tmp_path, path=".")
    assert (len(data.train), len(data.validation or ())) == (6, 2)
    assert data.test is not None
    assert len(data.test) == 18


@pytest.mark.parametrize("inside", ["", "unknown"])
def test_test_images_without_labels_are_left_out(tmp_path: Path, inside: str) -> None:
    _images(tmp_path / "train", "cat", "dog", count=5)
    _images(tmp_path / "test", inside, count=3)
    data = _load("image-folder", tmp_path, path=".")
    assert data.test is None
    assert (data.understood[-1].taken_for, data.understood[-1].note) == ("left out", "test")


def test_files_of_their_own_are_tested(tmp_path: Path) -> None:
    for name, rows in (("train", 10), ("test", 3)):
        lines = [f"{10 * row},{row % 2}" for row in range(rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["size,label", *lines]))
    table = _load("csv", tmp_path, path="train.csv", target="label", test_path="test.csv")
    assert table.test is not None
    assert table.validation is not None
    assert (len(table.train), len(table.validation), len(table.test)) == (8, 2, 3)
    x = np.arange(10.0)[:, None]
    np.savez(tmp_path / "arrays.npz", x=x, y=np.arange(10) % 2, x_test=x[:4], y_test=np.arange(4) % 2)
    arrays = _load("npz", tmp_path, path="arrays.npz", validation=0, test=0.5)
    assert arrays.validation is None
    assert arrays.test is not None
    assert (len(arrays.train), len(arrays.test)) == (10, 4)


def test_a_share_is_held_out_where_a_split_has_no_val(tmp_path: Path) -> None:
    _images(tmp_path / "train", "cat", "dog", count=10)
    data = _load("image-folder", tmp_path, path=".", validation=0.2)
    assert (len(data.train), len(data.validation or ())) == (16, 4)


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (["cat/train", "cat/val", "dog/train", "dog/val"], "has train, val inside of a class"),
        (["train", "valid", "test"], "has 0.png, 1.png in no folder of a class"),
        (["cat", "dog", "."], "has 0.png, 1.png in no folder of a class"),
        (["train/cat", "train/dog", "birds"], "has birds beside"),
        (["."], "in no folder of a class"),
        (["train/cat"], "and has 1: cat"),
        (["test/cat", "test/dog", "val/cat", "val/dog"], "has test, val and no train"),
        (["Train/cat", "Train/dog", "train/cat", "train/dog"], "has Train beside"),
    ],
)
def test_a_layout_that_is_not_understood_is_refused_with_the_one_that_is(
    tmp_path: Path, folders: list[str], said: str
) -> None:
    for folder in folders:
        _images(tmp_path / "pets", folder, count=2)
    message = _refused("image-folder", tmp_path, path="pets")
    assert said in message
    assert "pets/train/cat/01.png" in message


@pytest.mark.parametrize(
    ("copies", "said"),
    [
        ({}, []),
        ({"train/cat/1.png": "train/cat/0.png"}, []),
        (
            {"val/cat/1.png": "train/cat/0.png"},
            ["on both sides of the split: train/cat/0.png and val/cat/1.png"],
        ),
        ({"train/dog/1.png": "train/cat/0.png"}, ["in two classes: train/cat/0.png and train/dog/1.png"]),
        (
            {"val/dog/1.png": "train/cat/0.png"},
            [
                "in two classes: train/cat/0.png and val/dog/1.png",
                "on both sides of the split: train/cat/0.png and val/dog/1.png",
            ],
        ),
        (
            {f"val/cat/{index}.png": f"train/cat/{index}.png" for index in range(7)},
            [
                "on both sides of the split: "
                + ", ".join(f"train/cat/{index}.png and val/cat/{index}.png" for index in range(5))
                + " and 2 more"
            ],
        ),
    ],
    ids=["none", "one class", "split", "classes", "both", "many"],
)
def test_the_same_picture_in_two_places_is_told_with_both_names(
    tmp_path: Path, copies: dict[str, str], said: list[str]
) -> None:
    for part in ("train", "val"):
        for label in ("cat", "dog"):
            (tmp_path / part / label).mkdir(parents=True)
            for index in range(7):
                noise = Image.frombytes("RGB", (6, 6), f"{part} {label} {index}".encode().ljust(108))
                noise.save(tmp_path / part / label / f"{index}.png", compress_level=0)  # all of one size
    for copy, original in copies.items():
        (tmp_path / copy).write_bytes((tmp_path / original).read_bytes())
    data = _load("image-folder", tmp_path, path=".")
    assert list(data.doubts()) == [f"the same picture is {one}" for one in said]


def test_a_picture_that_is_linked_or_gone_does_not_stop_the_look(tmp_path: Path) -> None:
    _images(tmp_path, "cat", "dog", count=3)
    (tmp_path / "dog" / "9.png").symlink_to(tmp_path / "cat" / "0.png")
    data = _load("image-folder", tmp_path, path=".", validation=0)
    (tmp_path / "dog" / "1.png").unlink()
    told = list(data.doubts())
    assert told[0].startswith("the same picture is in two classes: ")
    assert "cat/0.png and dog/" in told[0]


@pytest.mark.parametrize(
    ("folders", "asked"),
    [
        (["a/cat", "a/dog", "b/cat", "b/dog"], True),
        (["train/a/cat", "train/a/dog", "train/b/cat", "train/b/dog", "val/a/cat"], True),
        (["a/cat", "a/dog", "b/cat"], False),
        (["a/cat", "a/dog", "b/cat", "b/dog", "b"], False),
        (["a/new", "b/new"], False),
    ],
)
def test_classes_that_may_be_a_level_deeper_are_asked_for(tmp_path: Path, folders: list[str], asked: bool) -> None:
    for folder in folders:
        _images(tmp_path / "pets", folder, count=1)
    data = _load("image-folder", tmp_path, path="pets", validation=0.0)
    assert ["in cat, dog, as each class" in one.note for one in data.understood[:2]] == [asked, asked]


def test_names_that_are_no_text_are_read_and_shown(tmp_path: Path) -> None:
    _images(tmp_path, "cat", "dog", count=1)
    os.rename(os.fsencode(tmp_path / "cat"), os.fsencode(tmp_path) + b"/caf\xe9")
    os.rename(os.fsencode(tmp_path) + b"/caf\xe9/0.png", os.fsencode(tmp_path) + b"/caf\xe9/\xff.png")
    data = _load("image-folder", tmp_path, path=".", validation=0.0)
    assert len(_all(data.train)["input"]) == 2
    assert data.understood[0].name == "caf\\xe9"
    os.symlink(b"nowhere", os.fsencode(tmp_path) + b"/dog/\xfe.png")
    assert "\\xfe.png cannot be read" in _refused("image-folder", tmp_path, path=".")


def test_a_broken_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    _images(tmp_path, "cat", "dog", count=1)
    (tmp_path / "cat" / "0.png").write_bytes(b"no image")
    data = _load("image-folder", tmp_path, path=".", validation=0)
    with pytest.raises(Exception, match=r"0\.png cannot be read as an image"):
        data.train.fetch([0])


def test_a_partition_is_disjoint_complete_and_the_same_for_the_same_seed() -> None:
    classes = torch.arange(100) % 3
    train, validation = partition(100, 0.25, seed=1, classes=classes)
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(100))
    assert classes[validation].bincount().tolist() == [8, 8, 8]
    assert torch.equal(partition(100, 0.25, 1, classes)[1], validation)
    assert not torch.equal(partition(100, 0.25, 2, classes)[1], validation)


def test_a_class_of_one_sample_stays_in_training() -> None:
    _, validation = partition(5, 0.9, seed=0, classes=torch.tensor([0, 0, 0, 0, 1]))
    assert 4 not in validation.tolist()
