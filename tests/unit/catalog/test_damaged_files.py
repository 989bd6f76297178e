"""Whatever a file holds: it is read, or refused by its name. No traceback, and no warning without the name."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from collector import nothing_collected
from damaged import ARCHIVES, GOOD, PICTURES, TABLES, damaged, damaged_bytes
from epochal.catalog.build import load_data
from epochal.catalog.data import LoadedData
from epochal.cli.own_code import own_code
from epochal.errors import EpochalError
from epochal.spec.section import Component

OWN = """
import json
from pathlib import Path

import torch

from epochal.catalog.data import DataInfo, Field, LoadedData, SampleSplit


class Lines:
    def __init__(self, path):
        self.lines = path.read_text().splitlines()

    def __call__(self, index):
        values = [float(value) for value in self.lines[index].split()]
        return {"input": torch.tensor(values[:-1]), "target": torch.tensor(int(values[-1]))}


def load(folder, path):
    lines = Lines(Path(folder, path))
    info = DataInfo(Field((2,)), Field((), torch.int64, 2))
    return LoadedData(SampleSplit(len(lines.lines), lines), None, info, "", "")
"""
LINES = "".join(f"{index} {index / 2} {index % 2}\n" for index in range(9)).encode()


def table(folder: Path, name: str) -> Component:
    return Component(name="csv", params={"path": name, "target": "y"})


def arrays(folder: Path, name: str) -> Component:
    return Component(name="npz", params={"path": name})


def pictures(folder: Path, name: str) -> Component:
    for label in ("cat", "dog"):
        (folder / "pets" / label).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / "pets" / label / "good.png")
    (folder / name).replace(folder / "pets" / "cat" / name)
    return Component(name="image-folder", params={"path": "pets", "size": [4, 4]})


DOORS: dict[str, Callable[[Path, str], Component]] = {
    **dict.fromkeys(TABLES, table),
    **dict.fromkeys(ARCHIVES, arrays),
    **dict.fromkeys(PICTURES, pictures),
}


def read(data: LoadedData) -> None:
    """As `plan` and workers do."""
    for _, split in data.splits():
        for index in range(len(split)):
            split.fetch([index])
        assert all(values.isfinite().all() for values in split.fetch(range(len(split))).values())
    assert isinstance(list(data.doubts()), list)
    assert all(one.name and one.taken_for for one in data.understood)


def examined(folder: Path, name: str, content: bytes) -> EpochalError | None:
    (folder / name).write_bytes(content)
    with warnings.catch_warnings(record=True) as told, nothing_collected():
        warnings.simplefilter("always")
        refused: EpochalError | None = None
        try:
            read(load_data(DOORS[name](folder, name), folder))
        except EpochalError as error:
            refused = error
    for one in told:
        assert name in str(one.message)
    if refused is not None:
        assert name in str(refused)
        assert "Traceback" not in str(refused)
    return refused


@pytest.fixture
def few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers that promise many take long to refuse."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1 << 20)


@pytest.mark.parametrize("name", GOOD)
def test_the_good_file_is_read(tmp_path: Path, name: str) -> None:
    assert examined(tmp_path, name, GOOD[name][0]) is None


@pytest.mark.usefixtures("few_pixels")
@pytest.mark.parametrize("name", GOOD)
def test_a_damaged_copy_is_read_or_refused_by_name(tmp_path: Path, name: str) -> None:
    refused = [examined(tmp_path, name, damaged(name, seed)) for seed in range(8)]
    assert any(refused), "the damage is too little"


@pytest.mark.slow
@pytest.mark.usefixtures("few_pixels")
@pytest.mark.parametrize("name", GOOD)
def test_thousands_of_damaged_copies(tmp_path: Path, name: str) -> None:
    for seed in range(1000):
        examined(tmp_path, name, damaged(name, seed))


def own_code_is_refused(folder: Path, name: str, seed: int) -> bool:
    """A dataset of the user's own, in a module that no other case has imported, with its code or its file damaged."""
    module = f"mine_{name}_{seed}"
    contents = {"code": OWN.encode(), "lines": LINES}
    contents[name] = damaged_bytes(Random(f"{name} {seed}"), contents[name])
    (folder / f"{module}.py").write_bytes(contents["code"])
    (folder / "lines.txt").write_bytes(contents["lines"])
    told = ""
    try:
        with own_code(folder):
            read(load_data(Component(name=f"{module}:load", params={"path": "lines.txt"}), folder))
    except EpochalError as error:
        told = str(error)
    assert "Traceback" not in told
    assert not told or module in told or "sample" in told
    return bool(told)


@pytest.mark.parametrize("name", ["code", "lines"])
def test_a_dataset_of_the_users_own_is_read_or_refused_by_name(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    refused = [own_code_is_refused(tmp_path, name, seed) for seed in range(20)]
    assert any(refused)
