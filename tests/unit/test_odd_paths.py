"""Any path that the operating system allows works, or is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from epochal import settings
from epochal.cli.main import main
from epochal.errors import UsageError
from epochal.files import write_atomically
from epochal.server.storage import Storage
from epochal.settings import sqlite_url
from epochal.tracking.connection import artifact_location, is_sqlite, sqlite_path
from odd_names import NOT_TEXT, ODD_NAMES, every_name, home_named

QUICK = ("space", "question", "percent", "colon", "unicode", "newline", "option", "long")
"""A name each for the shell, URLs, SQLite, encodings, terminals, options and the file system."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, id=kind, marks=() if kind in QUICK else pytest.mark.slow) for kind, name in ODD_NAMES.items()],
)
def test_a_home_of_that_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = home_named(name, tmp_path, monkeypatch)
    monkeypatch.chdir(home)
    assert main(["db", "upgrade"]) == 0
    assert main(["db", "backup", "copy.db"]) == 0
    assert (home / "server" / "ledger.db").is_file()
    assert main(["db", "prune", "--ledger", sqlite_url(home / "copy.db")]) == 0
    assert main(["config", "list"]) == 0
    assert main(["schema", "--file", "schema.json"]) == 0
    assert json.loads((home / "schema.json").read_text())
    assert main(["jobs"]) == 5
    assert "no server is known" in capsys.readouterr().err
    assert [one.name for one in home.parent.iterdir()] == [name], "nothing was made beside it"


@every_name
def test_a_url_names_the_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert is_sqlite(sqlite_url(path))
    assert sqlite_path(sqlite_url(path)) == path
    location = artifact_location(sqlite_url(path / "mlflow.db"), "team/x")
    assert location == (path / "artifacts" / "team_x").as_uri()


def test_a_long_experiment_has_a_folder_that_can_be_made(tmp_path: Path) -> None:
    found = [artifact_location(sqlite_url(tmp_path / "mlflow.db"), "é" * 249 + end) for end in ("a", "b", "/", "?")]
    folders = [Path(unquote(urlparse(uri).path)) for uri in found if uri is not None]
    assert len(set(folders)) == 3, "the last two are both spelled with _"
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)


@every_name
def test_a_store_of_that_name(name: str, tmp_path: Path) -> None:
    place = tmp_path / name
    storage = Storage(str(place))
    storage.write(("code", "a.zip"), b"first")
    assert storage.read(("code", "a.zip"), 0, 3) == b"fir"
    assert storage.sizes("code") == {("a.zip",): 5}
    assert storage.names("code") == {"a.zip"}
    storage.delete("code")
    assert storage.size("code", "a.zip") is None
    assert [one.name for one in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, *ODD_NAMES.values()], ids=["longest", "longest é", *ODD_NAMES])
def test_a_file_of_that_name_is_written(name: str, tmp_path: Path) -> None:
    write_atomically(tmp_path / name, "whole")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [(name, "whole")]


@pytest.mark.parametrize("words", [["db", "upgrade"], ["jobs"], ["run", "job.yaml"], ["ui"], ["up"], ["doctor"]])
def test_a_home_that_is_no_text_is_refused(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.yaml").write_text(
        "{version: 1, name: a, model: {name: mlp}, data: {name: wine}, train: {epochs: 1}}"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHAL_HOME", str(tmp_path / NOT_TEXT))
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "r\\udce9sultats' is not UTF-8" in told
    assert "hint: set EPOCHAL_HOME to another folder" in told
    assert not (tmp_path / NOT_TEXT).exists()


def test_a_home_of_nobody_is_refused() -> None:
    with pytest.raises(UsageError, match="the folder of `~` is not known"):
        settings.home({"EPOCHAL_HOME": "~nobody-of-that-name/x"})
