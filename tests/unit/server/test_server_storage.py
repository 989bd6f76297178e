"""Files of the server, in a folder and behind fsspec: one behaviour."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import pytest

from epochal.errors import UnreachableError, UsageError
from epochal.server.storage import Storage


@pytest.fixture(params=["folder", "fsspec"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "kept") if request.param == "folder" else f"memory://{tmp_path}")


def test_what_was_put_is_read(storage: Storage) -> None:
    storage.put(io.BytesIO(b"one two"), "code", "a.zip")
    assert storage.size("code", "a.zip") == 7
    assert storage.read(("code", "a.zip"), 4, 7) == b"two"
    assert b"".join(storage.blocks("code", "a.zip")) == b"one two"


def test_what_is_not_there_has_no_size(storage: Storage) -> None:
    assert storage.size("code", "none.zip") is None
    assert storage.sizes("logs", "none") == {}


def test_appending_goes_on_from_what_is_held(storage: Storage) -> None:
    name = ("logs", "a", "0")
    storage.append(name, 0, b"one")
    storage.append(name, 3, b" two")
    assert storage.read(name, 0, 100) == b"one two"


def test_appending_after_a_torn_write_replaces_what_was_torn(storage: Storage) -> None:
    name = ("logs", "a", "0")
    storage.append(name, 0, b"one torn")
    storage.append(name, 3, b" two")
    assert storage.read(name, 0, 100) == b"one two"


def test_sizes_are_of_everything_below(storage: Storage) -> None:
    storage.append(("logs", "a", "1", "0"), 0, b"x")
    storage.append(("logs", "a", "2", "0"), 0, b"xyz")
    storage.append(("logs", "ab", "1", "0"), 0, b"other")
    assert storage.sizes("logs", "a") == {("1", "0"): 1, ("2", "0"): 3}


@pytest.mark.parametrize("part", ["..", ".", "", "a/b", "/etc", "a\\b", "\x00", ".hidden", "a\n", "x" * 300])
def test_no_name_leads_out_of_the_folder(storage: Storage, part: str) -> None:
    with pytest.raises(UsageError):
        storage.size("code", part)
    with pytest.raises(UsageError):
        storage.append(("logs", part), 0, b"x")


def test_others_cannot_read_the_folder(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "kept"))
    storage.append(("logs", "a"), 0, b"x")
    storage.put(io.BytesIO(b"x"), "code", "b")
    written = [tmp_path / "kept", *(tmp_path / "kept").rglob("*")]
    assert not [path for path in written if stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_storage_that_is_gone_is_told(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "kept"))
    storage.check()
    (tmp_path / "kept").rmdir()
    with pytest.raises(UnreachableError, match="missing"):
        storage.check()


def test_an_unknown_kind_of_url_is_refused() -> None:
    with pytest.raises(UsageError, match="nonsense"):
        Storage("nonsense://x")
