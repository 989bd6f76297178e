"""A reader's next page of a job's logs: of every rank a fair share, attempt by attempt."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from epochal.server.log_store import Log, LogStore, Stream, cursor_text, positions_of, text_of
from epochal.server.schemas import LogFilter

_LEAST_SHARE = 4096


@dataclass(frozen=True)
class LogPage:
    """``chunks`` as they are answered; ``at_end``: there was nothing more to read."""

    chunks: tuple[dict[str, Any], ...]
    cursor: str
    at_end: bool


def next_page(store: LogStore, job_id: str, question: LogFilter, is_over: bool) -> LogPage:
    """What follows ``question.cursor``. ``is_over``: nothing is added to these logs any more.

    What was listed for the page before serves for this one too, up to where it ends.
    """
    if question.cursor:
        page = _page(store, job_id, store.logs(job_id, fresh=False), question, is_over=False)
        if page.chunks and not page.at_end:
            return page
    return _page(store, job_id, store.logs(job_id), question, is_over)


def _page(store: LogStore, job_id: str, held: dict[Stream, Log], question: LogFilter, is_over: bool) -> LogPage:
    rank, attempt = question.rank, question.attempt
    logs = {one: log for one, log in held.items() if rank in (None, one.rank) and attempt in (None, one.attempt)}
    positions = dict(positions_of(question.cursor))
    if not question.cursor and question.tail is not None:
        positions = _tails(store, job_id, logs, question.tail)
    chunks: list[dict[str, Any]] = []
    left = question.limit_bytes
    for _, group in groupby(logs, key=lambda stream: stream.attempt):
        streams = [stream for stream in group if positions.get(stream, 0) < logs[stream].end]
        more = False
        share = max(_LEAST_SHARE, left // max(1, len(streams)))
        for stream in streams:
            begin = positions.get(stream, 0)
            data = store.read(job_id, stream, logs[stream], begin, share)
            reaches_end = begin + len(data) >= logs[stream].end
            more = more or not reaches_end
            text, size = text_of(data, is_all=is_over and reaches_end)
            if text:
                chunks.append({"attempt": stream.attempt, "rank": stream.rank, "offset": begin, "text": text})
            positions[stream] = begin + size
            left -= size
        # A dead attempt may end in half a character. Its rest may yet come, and later attempts do not wait for it.
        if more or left <= 0:
            break
    at_end = all(positions.get(stream, 0) >= log.end for stream, log in logs.items())
    return LogPage(tuple(chunks), cursor_text(positions), at_end)


def _tails(store: LogStore, job_id: str, logs: dict[Stream, Log], lines: int) -> dict[Stream, int]:
    """The newest attempt's last lines; of older ones nothing, unless there is no newer one."""
    newest = max((stream.attempt for stream in logs), default=0)
    return {
        stream: store.tail(job_id, stream, log, lines) if stream.attempt == newest else log.end
        for stream, log in logs.items()
    }
