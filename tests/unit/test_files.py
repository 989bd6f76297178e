"""Files that are there whole or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from epochal.files import write_atomically


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
