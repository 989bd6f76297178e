"""Takes what a worker and its children print from a pipe into the worker's log file, without the values of secrets.

A process of its own, on the standard library alone (8 MiB, 10 ms): a thread of the worker's could not run while another
one, which waits for room in the pipe, holds the interpreter's lock, and would die with a worker that crashes, with its
last words. It ends with the worker.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from epochal.engine.rows import Rows
from epochal.redaction import SHORTEST, Redactor, unreplaced
from epochal.terminal import covers

NAME = "epochal-output"
"""Of the process, in the system's table."""

FILE_BYTES = 64 * 1024 * 1024
"""A log file that has grown beyond this is set aside, and the one set aside before it is deleted."""

STATE_SECONDS = 1.0
"""Of a line that is written over and over, a state is kept that often."""

_READ_BYTES = 2**20
_FULL_READ = 2**16
_PAUSE_SECONDS = 0.01
_LOOK_SECONDS, _STATE_LOOK_SECONDS = 0.5, 0.1
_BACKLOG_BYTES = 2**20
_LONGEST_STATE = 2**16


class Lines:
    """What to keep of a stream: all of it, but of a line that is written over (a progress bar) the newest state only,
    at most once a second."""

    def __init__(self) -> None:
        self._states: list[bytes] = []
        """Of the current line, what is to be written. Each but a first one begins with a carriage return."""
        self._newest = b""
        self._goes_on = False
        """Whether the beginning of the newest state is written already."""
        self._due = 0.0

    def feed(self, data: bytes, now: float) -> bytes:
        """What is to be written now."""
        *whole, rest = data.split(b"\n")
        written = []
        for line in whole:
            self._add(line)
            written.append(self.flush() + b"\n")
            self._goes_on, self._due = False, 0.0
        self._add(rest)
        return b"".join([*written, self.look(now)])

    def look(self, now: float) -> bytes:
        """What is to be written now, where nothing came."""
        if not self.waits or (now < self._due and not self._goes_on and len(self._newest) < _LONGEST_STATE):
            return b""
        self._due = now + STATE_SECONDS
        bare = self._newest == b"\r"  # kept back: the state before it can be seen until something follows
        if not bare:
            self._settle()
        self._goes_on = self._goes_on or not bare
        return self._written()

    @property
    def waits(self) -> bool:
        return bool(self._states or self._newest.strip(b"\r"))

    def flush(self) -> bytes:
        """What is kept back."""
        self._settle()
        self._goes_on = True
        return self._written()

    def _add(self, text: bytes) -> None:
        first, *states = text.split(b"\r")
        self._newest += first
        for state in states:
            self._settle()
            self._newest, self._goes_on = b"\r" + state, False

    def _settle(self) -> None:
        """The newest state is one of those to be written, in the place of those that it covers."""
        newest, self._newest = self._newest, b""
        # The rest of one whose beginning is written may stand anywhere in the line.
        if newest.startswith(b"\r") and len(newest) > 1:
            while self._states and _is_covered(self._states[-1], newest):
                del self._states[-1]
        if newest:
            self._states.append(newest)

    def _written(self) -> bytes:
        written = b"".join(self._states)
        self._states.clear()
        return written


def _is_covered(older: bytes, newer: bytes) -> bool:
    return older.startswith(b"\r") and covers(
        newer[1:].decode("utf-8", "replace"), older[1:].decode("utf-8", "replace")
    )


class LogFile:
    """The file at ``path``, within bounds. While its disk is full, or away, what is written waits for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = bytearray()
        self._lost = 0
        self._descriptor = self._opened()

    def write(self, data: bytes) -> None:
        if len(self._waiting) < _BACKLOG_BYTES:
            self._waiting += data
        else:
            self._lost += len(data)
        try:
            self._drain()
            if self._lost:
                self._waiting += f"\n[{self._lost} bytes are missing here: the disk was full, or away]\n".encode()
                self._lost = 0
                self._drain()
            if os.fstat(self._descriptor).st_size > FILE_BYTES:
                self._set_aside()
        except OSError:
            return

    @property
    def waits(self) -> bool:
        return bool(self._waiting)

    def _drain(self) -> None:
        while self._waiting:
            del self._waiting[: os.write(self._descriptor, self._waiting)]

    def _opened(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def _set_aside(self) -> None:
        """Between the two renames there is no log: who finds one finds the right place of its beginning too."""
        aside = aside_of(self._path)
        draft = aside.with_name(f".{self._path.name}.start")
        draft.write_text(str(start_of(self._path) + self._path.stat().st_size))  # first: the disk may be full
        os.replace(self._path, aside)
        os.replace(draft, _start_path(self._path))
        full, self._descriptor = self._descriptor, self._opened()
        os.close(full)


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


def relay(source: int, log: LogFile, redactor: Redactor, worker: int) -> None:
    """Until the process ``worker`` has ended, or everybody has closed the pipe ``source``: whoever is left of the
    worker's children has no log any more.

    For each byte on standard input, all that was printed before is written, and a byte on standard output says so.
    """
    rows, lines, poll = Rows(), Lines(), select.poll()
    poll.register(source, select.POLLIN)
    poll.register(0, select.POLLIN)
    is_open = True
    while is_open:
        ready = dict(poll.poll((_STATE_LOOK_SECONDS if lines.waits else _LOOK_SECONDS) * 1000))
        asked = bool(ready.get(0, 0) & select.POLLIN) and os.read(0, 1) != b""
        ended = os.getppid() != worker or (0 in ready and not asked)
        is_open = not ended and ready.get(source) != select.POLLHUP
        data = _read(source, whole=asked or not is_open)
        kept = lines.feed(rows.feed(redactor.feed(data)), time.monotonic())
        if asked or not is_open:
            rest = rows.feed(redactor.flush()) + rows.flush()
            kept += lines.feed(rest, time.monotonic()) + lines.flush()
        if kept or log.waits:
            log.write(kept)
        if asked:
            os.write(1, b".")
        elif is_open and data and len(data) < _FULL_READ:
            time.sleep(_PAUSE_SECONDS)  # one look for many small writes


def _read(source: int, whole: bool) -> bytes:
    """What is in the pipe; ``whole``: until there is nothing more, or as much as it holds."""
    data, poll = b"", select.poll()
    poll.register(source, select.POLLIN)
    while any(event & select.POLLIN for _, event in poll.poll(0)) and len(data) < _READ_BYTES:
        data += os.read(source, _READ_BYTES)
        if not whole:
            break
    return data


def main() -> None:
    """``relay.py SOURCE LOG WORKER SECRET...``: descriptor, path, process id, and names of variables."""
    source, path, worker, *secrets = sys.argv[1:]
    # It has to outlive the worker, whose last words it has, also where a shutdown signals everyone at once.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        Path("/proc/self/comm").write_text(NAME)
    log = LogFile(Path(path))
    if short := unreplaced(secrets):
        told = f"secrets: {', '.join(short)}: what is shorter than {SHORTEST} characters is not replaced in this log\n"
        log.write(told.encode())
    relay(int(source), log, Redactor.of_variables(secrets), int(worker))
