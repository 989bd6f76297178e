"""New lines of a worker's log file, within bounds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

READ_BYTES = 16 * 1024
"""Streamed at a time; of what came in between, the newest is shown and the rest is in the file."""

FILE_BYTES = 64 * 1024 * 1024
"""A log file that has grown beyond this is set aside, and the one set aside before it is deleted."""

_IMPATIENCE_SECONDS = 2.0


class LogTail:
    """Follows one file that others append to. ``rotate`` is called once the file was set aside."""

    def __init__(self, path: Path, rotate: Callable[[Path], None]) -> None:
        self._path = path
        self._rotate = rotate
        self._offset = path.stat().st_size if path.exists() else 0
        self._rest = ""
        self._rest_since = time.monotonic()

    def read(self, final: bool = False) -> str:
        """Whole lines that came since the last call; with ``final`` an unfinished one too."""
        size = self._path.stat().st_size
        text = self._rest + self._new(size)
        lines, self._rest = split_lines(text)
        if self._rest and (final or time.monotonic() - self._rest_since > _IMPATIENCE_SECONDS):
            lines, self._rest = lines + last_overwrite(self._rest) + "\n", ""
        if not self._rest:
            self._rest_since = time.monotonic()
        if size > FILE_BYTES:
            self._set_aside()
        return lines

    def _new(self, size: int) -> str:
        skipped = max(0, size - self._offset - READ_BYTES)
        if size <= self._offset:
            return ""
        with open(self._path, "rb") as file:
            file.seek(self._offset + skipped)
            data = file.read(size - self._offset - skipped)
        self._offset = size
        text = data.decode("utf-8", errors="replace")
        return f"[{skipped} bytes not shown here; all of it is in {self._path}]\n{text}" if skipped else text

    def _set_aside(self) -> None:
        """Between the two renames there is no log: who finds one finds the right place of its beginning too.

        Where the disk is full the log just grows on.
        """
        aside = aside_of(self._path)
        draft = aside.with_name(f".{self._path.name}.start")
        try:
            draft.write_text(str(start_of(self._path) + self._path.stat().st_size))
        except OSError:
            return
        os.replace(self._path, aside)
        os.replace(draft, _start_path(self._path))
        self._rotate(self._path)
        self._offset = 0


def aside_of(path: Path) -> Path:
    """Where the log that has grown too large was set aside."""
    return path.with_name(f"{path.name}.1")


def start_of(path: Path) -> int:
    """Where in all that was ever printed this log begins, in bytes: 0 until one was set aside."""
    try:
        return int(_start_path(path).read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _start_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.start")


def split_lines(text: str) -> tuple[str, str]:
    r"""The finished lines, and the unfinished rest; a line keeps what a progress bar showed last.

    >>> split_lines("a\n 10%\r 90%\rdone\nrest")
    ('a\ndone\n', 'rest')
    """
    body, newline, rest = text.rpartition("\n")
    lines = "".join(f"{last_overwrite(line)}\n" for line in body.split("\n")) if newline else ""
    return lines, rest if "\r" not in rest else last_overwrite(rest)


def last_overwrite(line: str) -> str:
    r"""What a terminal would show of a line with carriage returns.

    >>> last_overwrite("10%\r20%\r")
    '20%'
    """
    return line.rstrip("\r").rpartition("\r")[2]
