"""What comes in a worker's log file, within bounds."""

from __future__ import annotations

import codecs
import errno
import os
from pathlib import Path

from epochal.engine.relay import aside_of, start_of
from epochal.terminal import newest, shown

READ_BYTES = 16 * 1024
"""Streamed at a time; of what came in between, the newest is shown and the rest is in the file."""

CHUNK_BYTES = 512 * 1024
"""Shipped with one request."""


class LogTail:
    """Follows one file that a relay appends to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = _end_of(path)
        self._rest = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self, final: bool = False) -> tuple[str, str]:
        """Whole lines that came since the last call, with ``final`` an unfinished one too; and what a terminal shows of
        a line that had begun by then and has not ended."""
        had_begun = bool(self._rest)
        body, newline, rest = (self._rest + self._new()).rpartition("\n")
        if final and rest:
            body, newline, rest = body + newline + rest, "\n", ""
        self._rest = newest(rest)
        lines = "".join(f"{shown(line)}\n" for line in body.split("\n")) if newline else ""
        return lines, shown(rest) if had_begun and not newline else ""

    def _new(self) -> str:
        try:
            skipped = max(0, _end_of(self._path) - self._at - READ_BYTES)
            data = read_from(self._path, self._at + skipped, READ_BYTES)
        except OSError:  # the storage is away for a moment: no training ends for what it shows
            return ""
        if not data:
            return ""
        self._at += skipped + len(data)
        note = f"[{skipped} bytes not shown here; all of it is in {self._path}]\n" if skipped else ""
        return note + self._decoder.decode(data)


def read_from(path: Path, offset: int, most: int = CHUNK_BYTES) -> bytes:
    """What was printed from byte ``offset`` on, at most ``most`` of it; the log may have been set aside in between.

    Empty where there is nothing yet, and where it is not kept any more.
    """
    begins = start_of(path)
    if offset < begins:
        return _part(aside_of(path), offset - begins, most)
    data = _part(path, offset - begins, most)
    # Set aside just now: what was read is of another place.
    return data if start_of(path) == begins else b""


def _end_of(path: Path) -> int:
    return start_of(path) + (path.stat().st_size if path.exists() else 0)


def _part(path: Path, position: int, most: int) -> bytes:
    """From ``position`` on; from the end where that is negative, and nothing where the file is shorter than that."""
    try:
        # A log is no link: code of the job, which may write there, could have it lead to what the agent alone may read.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            size = file.seek(0, 2)
            if position < -size or position > size:
                return b""
            file.seek(position if position >= 0 else size + position)
            return file.read(most)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        return b""
