"""What the workers print, kept as ``logs/<job>/<attempt>/<rank>/<offset of the first byte>``.

A log grows at its end alone, by offsets: what is sent again is left out, and what would leave a gap is refused, so
that a cut connection neither loses nor doubles a line. Chunks are small enough to be written anew, as object
stores want.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from epochal.server.storage import Storage

CHUNK = 2**20
CURSOR = r"^([0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,15}(_[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,15})*)?$"
"""What ``cursor_text`` writes."""
LONGEST_CURSOR = 60_000
"""Characters: more than 4,000 logs need, and as many as HTTP clients send in an address."""
_FOLDER = "logs"
_LOCKS = 64
_TAIL_BLOCK = 2**16
_TAIL_BYTES = 2**20
"""The most that the last lines of one log may take."""


class Stream(NamedTuple):
    """One rank of one attempt."""

    attempt: int
    rank: int


class Piece(NamedTuple):
    """One chunk as it is stored: the log's bytes from ``start`` on, ``size`` of them."""

    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True)
class Log:
    """What is held of one stream, oldest first."""

    pieces: tuple[Piece, ...] = ()

    @property
    def end(self) -> int:
        return self.pieces[-1].end if self.pieces else 0

    @property
    def start(self) -> int:
        return self.pieces[0].start if self.pieces else 0


class LogStore:
    """The logs of all jobs."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._locks = tuple(threading.Lock() for _ in range(_LOCKS))

    def append(self, job_id: str, stream: Stream, offset: int, data: bytes) -> int:
        """Add what ``data``, which starts at byte ``offset`` of the log, has beyond the end; the new end.

        Where something is missing before ``offset`` nothing is kept, and the answer is smaller than it.
        """
        with self._lock(job_id, stream):
            log = self._log(job_id, stream)
            if offset > log.end:
                return log.end
            return self._extend(job_id, stream, log, data[log.end - offset :])

    def logs(self, job_id: str) -> dict[Stream, Log]:
        """Every log of a job, by attempt and rank."""
        found: dict[Stream, list[Piece]] = {}
        for name, size in self._storage.sizes(_FOLDER, job_id).items():
            if len(name) == 3 and all(part.isdecimal() for part in name):
                attempt, rank, start = map(int, name)
                found.setdefault(Stream(attempt, rank), []).append(Piece(start, size))
        return {stream: Log(tuple(sorted(found[stream]))) for stream in sorted(found)}

    def jobs(self) -> set[str]:
        """The ids of the jobs that have logs."""
        return self._storage.names(_FOLDER)

    def delete(self, job_id: str) -> None:
        self._storage.delete(_FOLDER, job_id)

    def read(self, job_id: str, stream: Stream, log: Log, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``offset`` on."""
        parts = []
        for piece in log.pieces:
            start, end = max(offset, piece.start), min(piece.end, offset + limit)
            if start < end:
                parts.append(self._storage.read(_name(job_id, stream, piece), start - piece.start, end - piece.start))
        return b"".join(parts)

    def tail(self, job_id: str, stream: Stream, log: Log, lines: int) -> int:
        """The offset at which the last ``lines`` lines begin."""
        below, seen = log.end, b""
        while below > log.start and len(seen) < _TAIL_BYTES:
            start = max(log.start, below - _TAIL_BLOCK)
            seen = self.read(job_id, stream, log, start, below - start) + seen
            below = start
            if seen.rstrip(b"\n").count(b"\n") >= lines:
                break
        return log.end - len(_last_lines(seen, lines))

    def _extend(self, job_id: str, stream: Stream, log: Log, data: bytes) -> int:
        last, end = log.pieces[-1] if log.pieces else None, log.end
        while data:
            if last is None or last.size >= CHUNK:
                last = Piece(end, 0)
            part = data[: CHUNK - last.size]
            self._storage.append(_name(job_id, stream, last), last.size, part)
            last, end, data = Piece(last.start, last.size + len(part)), end + len(part), data[len(part) :]
        return end

    def _log(self, job_id: str, stream: Stream) -> Log:
        sizes = self._storage.sizes(_FOLDER, job_id, str(stream.attempt), str(stream.rank))
        return Log(tuple(sorted(Piece(int(name[0]), size) for name, size in sizes.items() if name[0].isdecimal())))

    def _lock(self, job_id: str, stream: Stream) -> threading.Lock:
        return self._locks[zlib.crc32(f"{job_id} {stream}".encode()) % _LOCKS]


def text_of(data: bytes, is_all: bool) -> tuple[str, int]:
    """The text of ``data``, and how many bytes of it that is: a character whose end is still to come is left out.

    >>> text_of("né".encode()[:-1], is_all=False)
    ('n', 1)
    """
    whole = len(data) if is_all else len(data) - _begun(data)
    return data[:whole].decode("utf-8", "replace"), whole


def _begun(data: bytes) -> int:
    """Bytes at the end that begin a UTF-8 character and do not end it."""
    for back, byte in enumerate(reversed(data[-3:]), start=1):
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if length > back else 0
        if byte < 0x80:
            return 0
    return 0


def _last_lines(data: bytes, lines: int) -> bytes:
    found = data.splitlines(keepends=True) if lines else []
    return b"".join(found[-lines:]) if lines else b""


def _name(job_id: str, stream: Stream, piece: Piece) -> tuple[str, ...]:
    return _FOLDER, job_id, str(stream.attempt), str(stream.rank), f"{piece.start:020}"


def cursor_text(positions: dict[Stream, int]) -> str:
    """Where a reader is in each log, as text that goes into a URL."""
    return "_".join(f"{stream.attempt}.{stream.rank}.{offset}" for stream, offset in sorted(positions.items()))


def positions_of(cursor: str) -> Iterator[tuple[Stream, int]]:
    """What ``cursor_text`` wrote."""
    for part in cursor.split("_") if cursor else ():
        attempt, rank, offset = map(int, part.split("."))
        yield Stream(attempt, rank), offset
