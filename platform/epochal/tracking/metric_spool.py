"""The metric spool: metrics as lines in a file, written in microseconds during the training and shipped later.

A segment is ``<job folder>/spool/<name>.jsonl``, one a writer. Each line is one ``log`` call::

    {"s":120,"t":1763683200123,"m":{"train/loss":0.25,"train/accuracy":0.93}}

``s`` is the global step, ``t`` the time in milliseconds, ``m`` the metrics. Now and then comes a mark,
``{"last":{"train/loss":119}}``: the last step of each metric so far, so that a resumed attempt need not read a long
segment from its start. A line counts once its newline is there: a process killed in the middle of a write leaves
half a line, which readers never see.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from epochal.files import sync
from epochal.redaction import said
from epochal.tracking.desired_run import clean_key

FLUSH_SECONDS = 0.5
"""Buffered lines are written at least this often while metrics come in, so that curves are live."""
_MARK_EVERY_BYTES = 256 * 1024
_READ_BYTES = 1024 * 1024
_MARK = b'{"last":'

_logger = logging.getLogger(__name__)


class Point(NamedTuple):
    """One value of one metric; ``timestamp`` in milliseconds since 1970."""

    name: str
    value: float
    timestamp: int
    step: int


class Line(NamedTuple):
    """The points of one ``log`` call; ``end`` is the byte offset behind it."""

    end: int
    points: tuple[Point, ...]


def spool_folder(folder: Path) -> Path:
    return folder / "spool"


class MetricSpool:
    """A ``Recorder`` that appends to a segment of the job's spool. One writer a segment, used by one thread.

    A metric's steps only go up: a step at or below the metric's last one, in this segment or in one of an earlier
    attempt, is skipped. So an attempt that resumes from a checkpoint and repeats steps leaves one curve. ``repeat``
    keeps every value instead, for samples of the machine, where one step may last longer than a sample.

    A disk that is full costs no step: lines are kept in memory and a warning is logged. As long as it takes them not,
    ``sync`` and ``close`` raise: no checkpoint, and no end of the training, may be there without its metrics.
    """

    def __init__(self, folder: Path, name: str, *, repeat: bool = False) -> None:
        spool = spool_folder(folder)
        spool.mkdir(parents=True, exist_ok=True)
        self.path = spool / f"{name}.jsonl"
        self._last: dict[str, int] = {} if repeat else last_steps(folder)
        self._repeat = repeat
        self._keys: dict[str, tuple[str, str]] = {}
        """By name: as MLflow takes it, which is what ``_last`` has too, and that as JSON with its colon."""
        self._lines: list[str] = []
        self._unwritten = b""
        self._since_mark = 0
        self._warned: set[str] = set()
        self._next_flush = 0.0
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - open until close()
        self._drop_torn_line()

    def log(self, step: int, metrics: Mapping[str, float], timestamp: float | None = None) -> None:
        now = time.time() if timestamp is None else timestamp
        last, keys, parts = self._last, self._keys, []
        for name, value in metrics.items():
            stored, key = keys.get(name) or self._key(name)
            if stored in last and step <= last[stored]:
                continue
            if not self._repeat:
                last[stored] = step
            try:
                number = float(value)
            except (TypeError, ValueError, RuntimeError) as error:  # the last: a tensor of several numbers
                self._warn(name, f"metric {name!r} is not a number and is left out: {said(error)}")
                continue
            # What is not finite has another name in JSON; `repr` takes a fifth of the time.
            text = repr(number) if number - number == 0.0 else json.dumps(number)
            parts.append(key + text)
        if not parts:
            return
        self._lines.append(f'{{"s":{int(step)},"t":{int(now * 1000)},"m":{{{",".join(parts)}}}}}\n')
        if time.monotonic() >= self._next_flush:
            self.flush()

    def flush(self) -> None:
        self._next_flush = time.monotonic() + FLUSH_SECONDS
        data = self._unwritten + "".join(self._lines).encode()
        self._lines.clear()
        self._since_mark += len(data)
        if self._since_mark >= _MARK_EVERY_BYTES:
            data += self._mark()
        self._unwritten = self._write(data)

    def sync(self) -> None:
        if self._unwritten:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        try:
            sync(self.path, parents=3)  # the names of the segment, of the spool and of the job's folder
        except OSError as error:
            self._warn("sync", f"{self.path} may not survive a loss of power: {said(error)}")

    def close(self) -> None:
        if self._file.closed:
            return
        self.flush()
        if self._since_mark:
            self._unwritten = self._write(self._unwritten + self._mark())
        self._file.close()
        self.sync()

    def _write(self, data: bytes) -> bytes:
        """Write ``data``; returns what the disk did not take."""
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            self._warn("", f"{self.path} cannot be written, metrics are kept in memory: {said(error)}")
        return data

    def _mark(self) -> bytes:
        self._since_mark = 0
        return json.dumps({"last": self._last}, separators=(",", ":")).encode() + b"\n"

    def _key(self, name: str) -> tuple[str, str]:
        stored = clean_key(name) or "_"
        if other := next((one for one, (known, _) in self._keys.items() if known == stored), None):
            told = f"metrics {other!r} and {name!r} have one name in MLflow, {stored!r}: of each step the first is kept"
            self._warn(name, told)
        keys = self._keys[name] = stored, f"{json.dumps(stored)}:"
        return keys

    def _warn(self, about: str, message: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            _logger.warning(message)

    def _drop_torn_line(self) -> None:
        """A killed process may have left half a line in a segment that is opened again."""
        size = self.path.stat().st_size
        whole = _end_of_last_line(self.path, size)
        if whole != size:
            os.truncate(self.path, whole)


def last_steps(folder: Path) -> dict[str, int]:
    """The last step of each metric in a job's spool."""
    last: dict[str, int] = {}
    for path in segments(folder):
        for name, step in _segment_last_steps(path).items():
            last[name] = max(step, last.get(name, step))
    return last


def segments(folder: Path) -> list[Path]:
    """The segments of a job's spool, by name."""
    return sorted(spool_folder(folder).glob("*.jsonl"))


def whole_size(path: Path) -> int:
    """The bytes of a segment up to its last whole line."""
    return _end_of_last_line(path, path.stat().st_size)


def unsent_segments(folder: Path, offsets: Mapping[str, int]) -> Iterator[tuple[Path, int, int]]:
    """The segments with lines beyond ``offsets`` (bytes, by file name): path, where those begin, where they end."""
    for path in segments(folder):
        offset, size = offsets.get(path.name, 0), whole_size(path)
        if size > offset:
            yield path, offset, size


def read_lines(path: Path, offset: int = 0) -> Iterator[Line]:
    """The whole lines of a segment from ``offset`` (the ``end`` of an earlier line) on.

    Marks, and lines that cannot be read (a disk that lost power), come out as lines without points.
    """
    with path.open("rb") as file:
        file.seek(offset)
        rest = b""
        while chunk := file.read(_READ_BYTES):
            *whole, rest = (rest + chunk).split(b"\n")
            for raw in whole:
                offset += len(raw) + 1
                yield Line(offset, _points(raw))


def _points(raw: bytes) -> tuple[Point, ...]:
    try:
        record = json.loads(raw)
        step, timestamp = record["s"], record["t"]
        return tuple(Point(name, value, timestamp, step) for name, value in record["m"].items())
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()


def _end_of_last_line(path: Path, size: int) -> int:
    with path.open("rb") as file:
        end = size
        while end > 0:
            start = max(0, end - 4096)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


def _segment_last_steps(path: Path) -> dict[str, int]:
    last: dict[str, int] = {}
    for raw in _tail_from_mark(path).split(b"\n")[:-1]:
        last.update(_marked(raw))
        for point in _points(raw):
            last[point.name] = max(point.step, last.get(point.name, point.step))
    return last


def _marked(raw: bytes) -> dict[str, int]:
    """The steps that a line marks; none where it is no mark."""
    if not raw.startswith(_MARK):
        return {}
    try:
        return {str(name): int(step) for name, step in json.loads(raw)["last"].items()}
    except (ValueError, AttributeError):
        return {}


def _tail_from_mark(path: Path) -> bytes:
    """The end of a segment: from its last mark, or all of it where it has none."""
    with path.open("rb") as file:
        start = file.seek(0, os.SEEK_END)
        tail = b""
        while start > 0:
            step = min(start, _MARK_EVERY_BYTES)
            start -= step
            file.seek(start)
            tail = file.read(step) + tail
            found = tail.rfind(b"\n" + _MARK)
            if found >= 0 and b"\n" in tail[found + 1 :]:
                return tail[found + 1 :]
    return tail
