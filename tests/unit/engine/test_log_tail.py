"""What of a worker's output is passed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochal.engine import log_tail
from epochal.engine.log_tail import LogTail, split_lines


def tail_of(path: Path) -> LogTail:
    path.touch()
    return LogTail(path, Path.touch)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = tail_of(path)
    append(path, "one\ntwo")
    assert tail.read() == "one\n"
    assert tail.read() == ""
    append(path, " and more\n")
    assert tail.read() == "two and more\n"
    append(path, "the end")
    assert tail.read(final=True) == "the end\n"


def test_a_progress_bar_is_shown_as_a_terminal_would() -> None:
    assert split_lines("10%\r50%\r100%\nnext\r") == ("100%\n", "next")


def test_what_was_there_before_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, "old\n")
    tail = tail_of(path)
    append(path, "new\n")
    assert tail.read() == "new\n"


def test_a_flood_is_cut_to_its_newest_part(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = tail_of(path)
    append(path, "x" * 79 + "\n")
    append(path, ("y" * 79 + "\n") * 10_000)
    text = tail.read()
    assert len(text) < log_tail.READ_BYTES + 300
    assert text.startswith("[783696 bytes not shown here")
    assert tail.read() == ""


def test_the_file_does_not_grow_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_tail, "FILE_BYTES", 100)
    path = tmp_path / "log"
    tail = tail_of(path)
    append(path, "z" * 200 + "\n")
    assert tail.read() == "z" * 200 + "\n"
    assert path.stat().st_size == 0
    append(path, "after\n")
    assert tail.read() == "after\n"
    assert (tmp_path / "log.1").stat().st_size == 201
