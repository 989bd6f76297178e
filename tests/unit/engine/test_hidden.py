"""Modules of the user's code that have the names of others: refused, told, or nobody's business."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from epochal.engine.code import contents
from epochal.errors import CodeError

REFUSED = [
    "epochal.py", "epochal/__init__.py", "torch.py", "torch/__init__.py", "ray.py", "mlflow/__init__.py", "numpy.py",
    "PIL.py", "yaml.py", "pydantic/__init__.py", "click.abi3.so",
]  # fmt: skip
OF_PYTHON = [
    "random.py", "test.py", "types.py", "logging/__init__.py", "queue.so", "code.py", "json.py",
    "statistics.py", "enum.py", "profile.py",
]  # fmt: skip
NOBODYS = [
    "utils.py", "nets/torch.py", "train.py", "torch/README.md", "json/data.json", "torch.txt", "random.yaml",
    "epochal.ipynb",
    "my-torch.py", "torch.pyi", "nets/__init__.py", "__init__.py",
]  # fmt: skip


def warnings(folder: Path, *names: str, has_loaders: bool = False) -> tuple[str, ...]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return contents(folder, has_loaders=has_loaders).warnings


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_worker_is_made_of_is_not_hidden(name: str, tmp_path: Path) -> None:
    with pytest.raises(CodeError, match=f"in place of what they are made of: {name}") as caught:
        warnings(tmp_path, "train.py", name)
    assert "code.exclude" in caught.value.hint


@pytest.mark.parametrize("name", OF_PYTHON)
def test_a_module_of_pythons_name_is_told(name: str, tmp_path: Path) -> None:
    (text,) = warnings(tmp_path, "nets.py", name)
    assert f"have the names of Python's own modules: {name}; a worker may import either" in text


@pytest.mark.parametrize("name", [one for one in OF_PYTHON if one != "test.py"])
def test_a_module_of_pythons_name_is_refused_where_workers_start_processes(name: str, tmp_path: Path) -> None:
    with pytest.raises(CodeError, match=f"in place of Python's own modules: {name}") as caught:
        warnings(tmp_path, "nets.py", "test/__init__.py", name, has_loaders=True)
    assert "data.loader_workers" in caught.value.hint


def test_a_folder_of_tests_is_nobodys_trouble(tmp_path: Path) -> None:
    (text,) = warnings(tmp_path, "nets.py", "test/__init__.py", has_loaders=True)
    assert "test/__init__.py" in text


@pytest.mark.parametrize("name", NOBODYS)
def test_other_names_are_free(name: str, tmp_path: Path) -> None:
    assert warnings(tmp_path, name) == ()


def test_an_installed_module_that_is_hidden_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed, elsewhere = tmp_path / "lib/site-packages", tmp_path / "elsewhere"
    for place in (installed, elsewhere):
        monkeypatch.syspath_prepend(place)
    warnings(installed, "tables.py", "wide/__init__.py")
    warnings(elsewhere, "helpers.py")
    (text,) = warnings(tmp_path / "code", "tables.py", "wide.py", "helpers.py", "own.py")
    assert text == (
        "these files of your code have the names of installed modules, which they hide: "
        f"tables.py ({installed}/tables.py), wide.py ({installed}/wide/__init__.py)"
    )


def test_code_that_is_installed_from_where_it_is_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, installed = tmp_path / "code", tmp_path / "site-packages"
    assert warnings(code, "wide/__init__.py") == ()
    installed.mkdir()
    os.symlink(code / "wide", installed / "wide")
    monkeypatch.syspath_prepend(installed)
    assert warnings(code, "other.py") == ()


def test_several_are_one_warning(tmp_path: Path) -> None:
    names = sorted(f"{name}.py" for name in list(sys.stdlib_module_names)[:7] if name.isidentifier())
    (text,) = warnings(tmp_path, *names)
    assert f": {', '.join(names[:5])} and 2 more; " in text
