"""What the workers print, kept as ``logs/<job>/<attempt>/<rank>/<offset of the first byte>-<bytes>``.

A log grows at its end alone, by offsets: what is sent again is left out, and what would leave a gap is refused, so
that a cut connection neither loses nor doubles a line. What was written is never changed, so several servers may write
to one log at once: their pieces may overlap, and say the same where they do. Many small pieces are merged into a
larger one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

from epochal.server.storage import Storage

CHUNK = 2**20
"""Bytes: as far as pieces are merged while the log grows."""
LARGEST = 16 * 2**20
"""The same once its attempt is over; it has to fit into memory."""
SMALL_PIECES = 64
"""That many are merged."""
CURSOR = r"^([0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,15}(_[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,15})*)?$"
"""What ``cursor_text`` writes."""
LONGEST_CURSOR = 60_000
"""Characters: more than 4,000 logs need, and as many as HTTP clients send in an address."""
_FOLDER = "logs"
_SLOTS = 64
_TAIL_BLOCK = 2**16
_TAIL_BYTES = 2**20
"""The most that the last lines of one log may take."""


class Stream(NamedTuple):
    """One rank of one attempt."""

    attempt: int
    rank: int


class Piece(NamedTuple):
    """As it is stored: the log's bytes from ``start`` on, ``size`` of them."""

    start: int
    size: int
    name: str

    @property
    def end(self) -> int:
        return self.start + self.size


@dataclass(frozen=True)
class Log:
    """What is held of one stream, oldest first. Pieces may overlap, but none is within another, and none is missing."""

    pieces: tuple[Piece, ...] = ()

    @classmethod
    def of(cls, pieces: Iterable[Piece]) -> Self:
        kept: list[Piece] = []
        for piece in sorted(pieces, key=lambda one: (one.start, -one.size, one.name)):
            if kept and piece.start > kept[-1].end:
                break  # what is missing is sent again
            if not kept or piece.end > kept[-1].end:
                kept.append(piece)
        return cls(tuple(kept))

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
        # By a hash of the job's id, so that they never become more. Each is replaced as a whole: threads need no lock.
        self._listed: list[tuple[str, dict[Stream, Log]]] = [("", {})] * _SLOTS

    def append(self, job_id: str, stream: Stream, offset: int, data: bytes) -> int:
        """Add what ``data``, which starts at byte ``offset`` of the log, has beyond the end; the new end.

        Where something is missing before ``offset`` nothing is kept, and the answer is smaller than it.
        """
        log = Log.of(self._pieces(job_id, stream))
        new = data[log.end - offset :] if offset <= log.end else b""
        if new:
            self._write(job_id, stream, log.end, new)
            # Of less than half a chunk: two such neighbours fit into one.
            if sum(piece.size < CHUNK // 2 for piece in log.pieces) >= SMALL_PIECES:
                self._merge(job_id, stream, CHUNK)
        return log.end + len(new)

    def compact(self, job_id: str, attempt: int) -> None:
        """Merge the pieces of an attempt that is over into one for each rank, or few where it printed a lot."""
        for stream in self.logs(job_id):
            if stream.attempt == attempt:
                self._merge(job_id, stream, LARGEST)

    def logs(self, job_id: str, fresh: bool = True) -> dict[Stream, Log]:
        """Every log of a job, by attempt and rank; where not ``fresh``, perhaps as they were when last asked for."""
        slot = zlib.crc32(job_id.encode()) % _SLOTS
        of_job, logs = self._listed[slot]
        if fresh or of_job != job_id:
            found: dict[Stream, list[Piece]] = {}
            for name, size in self._storage.sizes(_FOLDER, job_id).items():
                if len(name) == 3 and all(part.isdecimal() for part in name[:2]):
                    found.setdefault(Stream(int(name[0]), int(name[1])), []).extend(_piece(name[2], size))
            logs = {stream: Log.of(found[stream]) for stream in sorted(found)}
            self._listed[slot] = job_id, logs
        return logs

    def jobs(self) -> set[str]:
        """The ids of the jobs that have logs."""
        return self._storage.names(_FOLDER)

    def delete(self, job_id: str) -> None:
        self._storage.delete(_FOLDER, job_id)

    def read(self, job_id: str, stream: Stream, log: Log, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``offset`` on."""
        parts: list[bytes] = []
        after = offset + limit
        for piece in log.pieces:
            start, end = max(offset, piece.start), min(piece.end, after)
            if start < end:
                part = self._storage.read(_name(job_id, stream, piece.name), start - piece.start, end - piece.start)
                if part is None:  # since ``log`` was listed it was merged, or the whole log deleted
                    newer = Log.of(self._pieces(job_id, stream))
                    return b"".join(parts) + self.read(job_id, stream, newer, start, after - start)
                parts.append(part)
                offset = end
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

    def _merge(self, job_id: str, stream: Stream, most: int) -> None:
        """Write neighbours of up to ``most`` bytes as one piece. They are deleted by the next merge: whoever lists them
        meanwhile lists the one that holds them too, and other servers may merge at the same time."""
        listed = self._pieces(job_id, stream)
        log = Log.of(listed)
        for piece in set(listed) - set(log.pieces):
            if piece.end <= log.end:
                self._storage.delete_file(*_name(job_id, stream, piece.name))
        groups: list[list[Piece]] = []
        for piece in log.pieces:
            if groups and piece.end - groups[-1][0].start <= most:
                groups[-1].append(piece)
            else:
                groups.append([piece])
        for first, *_, last in (group for group in groups if len(group) > 1):
            if merged := self.read(job_id, stream, log, first.start, last.end - first.start):
                self._write(job_id, stream, first.start, merged)

    def _write(self, job_id: str, stream: Stream, start: int, data: bytes) -> None:
        self._storage.write(_name(job_id, stream, f"{start:020}-{len(data)}"), data)

    def _pieces(self, job_id: str, stream: Stream) -> list[Piece]:
        sizes = self._storage.sizes(_FOLDER, job_id, str(stream.attempt), str(stream.rank))
        return [piece for name, size in sizes.items() for piece in _piece(name[0], size)]


def _piece(name: str, size: int) -> Iterator[Piece]:
    """Nothing where the file is none, or was not written to its end."""
    start, _, whole = name.partition("-")
    # Older versions named no size: they wrote a piece anew as it grew.
    if start.isdecimal() and whole in ("", str(size)):
        yield Piece(int(start), size, name)


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
    body, end = (data[:-1], data[-1:]) if data.endswith(b"\n") else (data, b"")
    return b"\n".join(body.split(b"\n")[-lines:]) + end if lines else b""


def _name(job_id: str, stream: Stream, piece: str) -> tuple[str, ...]:
    return _FOLDER, job_id, str(stream.attempt), str(stream.rank), piece


def cursor_text(positions: dict[Stream, int]) -> str:
    """Where a reader is in each log, as text that goes into a URL."""
    return "_".join(f"{stream.attempt}.{stream.rank}.{offset}" for stream, offset in sorted(positions.items()))


def positions_of(cursor: str) -> Iterator[tuple[Stream, int]]:
    """What ``cursor_text`` wrote."""
    for part in cursor.split("_") if cursor else ():
        attempt, rank, offset = map(int, part.split("."))
        yield Stream(attempt, rank), offset
