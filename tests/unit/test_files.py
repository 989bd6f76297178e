"""Files that are there whole or not at all, and files that one process at a time may hold."""

from __future__ import annotations

import errno
import fcntl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from epochal.files import is_locked, locked, write_atomically


def test_several_threads_may_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    contents = [str(digit) * 100_000 for digit in range(8)]
    write_atomically(path, contents[0])
    with ThreadPoolExecutor(len(contents)) as threads:
        written = [threads.submit(write_atomically, path, content) for content in contents * 20]
        while not all(one.done() for one in written):
            assert path.read_text() in contents
    assert all(one.exception() is None for one in written)
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_a_private_file_is_private_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    write_atomically(path, b"new", 0o600)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o600)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", "text")
    assert [one.name for one in tmp_path.iterdir()] == ["taken"]


def test_a_lock_is_held_by_one_and_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    assert not is_locked(path)
    with locked(path, 0.0) as mine:
        assert mine
        assert is_locked(path)
        with locked(path, 0.05) as also_mine:
            assert not also_mine
    assert not is_locked(path)


def test_where_a_file_system_has_no_locks_nobody_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> None:
        def flock(descriptor: int, how: int) -> None:
            raise OSError(number, "no")

        monkeypatch.setattr(fcntl, "flock", flock)

    refuse(errno.ENOLCK)
    with locked(tmp_path / "lock", 30.0) as mine:
        assert mine
    with pytest.raises(OSError, match="lock") as raised:  # and nobody can tell whether somebody has it
        is_locked(tmp_path / "lock")
    assert raised.value.filename == str(tmp_path / "lock")
    refuse(errno.EIO)
    with pytest.raises(OSError, match="no"), locked(tmp_path / "lock", 30.0):
        pass
