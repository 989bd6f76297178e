"""Folders of samples: what is read of them, and what is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from epochal.catalog.build import load_data
from epochal.catalog.datasets.files import ending, walk
from epochal.errors import EpochalError
from epochal.spec.section import Component


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a file of its own, a linked folder that leads back, and what programs leave."""
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for path in (data / "a.txt", elsewhere / "b.TXT", data / ".git/c.txt", data / "__MACOSX/d.txt", data / "._a.txt"):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(f"{path.name} is what is said in it\n")
    (data / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(data)
    (data / "folder.txt").mkdir()
    return data


def test_links_are_followed_and_what_is_hidden_is_left_out(folder: Path) -> None:
    assert [str(file.relative_to(folder)) for file in ending(folder, {".txt"})] == ["a.txt", "linked/b.TXT"]


def test_a_text_is_all_that_is_in_its_folder(folder: Path) -> None:
    params = {"path": "data", "length": 4}
    data = load_data(Component(name="text", params=params), folder.parent)
    letters = len("a.txt is what is said in it\n") + len("b.TXT is what is said in it\n") + 1
    assert data.understood[0].taken_for.startswith(f"{letters} tokens")


def test_a_folder_that_cannot_be_listed_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refused(path: str) -> object:
        if Path(path).name == "linked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refused)
        with pytest.raises(EpochalError, match=r"data/linked cannot be listed: Permission denied"):
            list(walk(folder))
