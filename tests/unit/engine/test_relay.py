"""What is kept of a worker's output."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from epochal.engine import relay
from epochal.engine.log_tail import read_from
from epochal.engine.relay import Lines, LogFile
from epochal.terminal import shown


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [
        (["one\ntwo"], "one\ntwo"),
        (["one", " two", "\n"], "one two\n"),
        (["a\r\nb\r\n"], "a\r\nb\r\n"),
        (["a\r", "\nb\r", "\n"], "a\r\nb\r\n"),
        (["\r 10%", "\r 20%", "\r 30%", "\n"], "\r 10%\r 30%\n"),
        (["\r 10%\r 20%\r 30%\nnext"], "\r 30%\nnext"),
        (["10%\r", "20%\r", "30%\r", "\n"], "10%\r30%\r\n"),
        (["\r100%", "\rok", "\n"], "\r100%\rok\n"),
        (["\rx", "\r100%", "\rok", "\rno", "\n"], "\rx\r100%\rno\n"),  # what a shorter one leaves is seen
        (["\r", "10%", "\r", "20%", "\r", "30%", "\n"], "\r10%\r30%\n"),
        (["\r100%", "\r200%", "\r\x1b[Kok", "\n"], "\r100%\r\x1b[Kok\n"),
        (["\r1 \x1b[32mok\x1b[0m", "\r2 ok", "\r3 ok", "\n"], "\r1 \x1b[32mok\x1b[0m\r3 ok\n"),
        (["50%\b\b\b60%\n"], "50%\b\b\b60%\n"),
        (["\ra\n\rb\n"], "\ra\n\rb\n"),
        (["\r\n\n\r"], "\r\n\n\r"),
    ],
)
def test_of_a_line_that_is_written_over_the_newest_state_is_kept(pieces: list[str], kept: str) -> None:
    lines = Lines()
    written = b"".join(lines.feed(piece.encode(), 100.0) for piece in pieces) + lines.flush()
    assert written.decode() == kept
    assert [shown(line) for line in kept.split("\n")] == [shown(line) for line in "".join(pieces).split("\n")]


def test_a_state_is_kept_once_a_second() -> None:
    lines = Lines()
    told = [(tick / 10, lines.feed(f"\rstep {tick}".encode(), tick / 10).decode()) for tick in range(100)]
    assert [(now, text) for now, text in told if text] == [(float(now), f"\rstep {10 * now}") for now in range(10)]
    assert lines.look(9.95) == b""
    assert lines.look(10.0) == b"\rstep 99", "where nothing follows, the newest is seen all the same"
    assert lines.look(11.0) == b""


def test_what_begins_a_line_is_written_at_once() -> None:
    lines = Lines()
    assert lines.feed(b"Loading", 1.0) == b"Loading"
    assert lines.feed(b" ...", 1.1) == b" ..."
    assert lines.feed(b" done\nNext", 1.2) == b" done\nNext"


def test_a_long_line_is_not_kept_in_memory() -> None:
    lines = Lines()
    lines.feed(b"\r", 1.0)
    assert len(lines.feed(b"L" * 5_000_000, 1.0)) >= 4_999_000


def test_the_file_does_not_grow_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "FILE_BYTES", 100)
    path = tmp_path / "log"
    log = LogFile(path)
    log.write(b"z" * 200 + b"\n")
    assert path.stat().st_size == 0
    log.write(b"after\n")
    assert (tmp_path / "log.1").stat().st_size == 201
    assert read_from(path, 0) == b"z" * 200 + b"\n"
    assert read_from(path, 201) == b"after\n"


def test_what_a_full_disk_does_not_take_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, write, full = LogFile(tmp_path / "log"), os.write, [True]

    def refuse(descriptor: int, data: bytes) -> int:
        if full:
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", refuse)
    monkeypatch.setattr(relay, "_BACKLOG_BYTES", 5)
    for part in (b"one\n", b"two\n", b"three\n"):
        log.write(part)
    full.clear()
    log.write(b"")
    log.write(b"four\n")
    assert (tmp_path / "log").read_bytes() == (
        b"one\ntwo\n\n[6 bytes are missing here: the disk was full, or away]\nfour\n"
    )
