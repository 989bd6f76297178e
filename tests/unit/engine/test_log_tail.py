"""What of a worker's output is passed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from epochal.engine import log_tail, relay
from epochal.engine.log_tail import LogTail
from epochal.engine.relay import LogFile


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    return LogFile(tmp_path / "log")


@pytest.fixture
def tail(tmp_path: Path, log: LogFile) -> LogTail:
    return LogTail(tmp_path / "log")


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (["one\ntwo", "", " and more\n"], [("one\n", ""), ("", "two"), ("two and more\n", "")]),
        (["Loading", "", "", " done\n"], [("", ""), ("", "Loading"), ("", "Loading"), ("Loading done\n", "")]),
        (["10%", "\r50%", "\r100%\nnext"], [("", ""), ("", "50%"), ("100%\n", "")]),
        (["\r10%\r", "\r20%\r"], [("", ""), ("", "20%")]),
        (["\x1b[32mgreen\x1b[0m\r\n"], [("green\n", "")]),
        (["n\xc3", "\xa9\n"], [("", ""), ("n\xe9\n", "")]),
        (["\n\n"], [("\n\n", "")]),
        ([""], [("", "")]),
    ],
)
def test_lines_and_what_has_begun(log: LogFile, tail: LogTail, parts: list[str], told: list[tuple[str, str]]) -> None:
    found = []
    for part in parts:
        log.write(part.encode("latin-1"))
        found.append(tail.read())
    assert found == told


def test_what_has_no_end_ends_with_the_attempt(log: LogFile, tail: LogTail) -> None:
    log.write(b"50%\rthe end")
    assert tail.read(final=True) == ("the end\n", "")
    assert tail.read(final=True) == ("", "")


def test_what_was_there_before_is_not_repeated(log: LogFile, tmp_path: Path) -> None:
    log.write(b"old\n")
    tail = LogTail(tmp_path / "log")
    log.write(b"new\n")
    assert tail.read() == ("new\n", "")


def test_a_flood_is_cut_to_its_newest_part(log: LogFile, tail: LogTail) -> None:
    log.write(b"x" * 79 + b"\n")
    log.write((b"y" * 79 + b"\n") * 10_000)
    text, _ = tail.read()
    assert len(text) < log_tail.READ_BYTES + 300
    assert text.startswith("[783696 bytes not shown here")
    assert tail.read() == ("", "")


def test_it_follows_a_log_that_is_set_aside(log: LogFile, tail: LogTail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "FILE_BYTES", 100)
    log.write(b"z" * 200 + b"\n")
    assert tail.read() == ("z" * 200 + "\n", "")
    log.write(b"after\n")
    assert tail.read() == ("after\n", "")


def test_a_log_that_cannot_be_read_for_a_moment_ends_nobody(log: LogFile, tail: LogTail, tmp_path: Path) -> None:
    log.write(b"one\n")
    path, away = tmp_path / "log", tmp_path / "away"
    path.rename(away)
    path.mkdir()
    assert tail.read() == ("", "")
    path.rmdir()
    away.rename(path)
    assert tail.read() == ("one\n", "")
