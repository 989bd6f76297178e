"""A job's events and logs, from where the reader is; with `wait`, as soon as there is something new."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from epochal.errors import EpochalError, UsageError
from epochal.server.auth import Reader
from epochal.server.error_responses import answer, json_bytes
from epochal.server.log_store import LONGEST_CURSOR, Log, LogStore, Stream, cursor_text, positions_of, text_of
from epochal.server.notifier import about, is_set_within, logs_of
from epochal.server.openapi import answers
from epochal.server.requests import CheckedRoute
from epochal.server.routes.jobs import Ref
from epochal.server.schemas import EVENTS, LARGEST, LOGS, EventFilter, LogFilter
from epochal.server.services import Deps, Services

_LINES, _STRING = "application/x-ndjson", {"type": "string"}
_QUIET_SECONDS = 15.0
_STREAM_SECONDS = 300.0
"""After which whoever listens has to ask again, and to show a token that is still good."""
_MOST_EVENTS = 1000
_LEAST_SHARE = 4096
"""Bytes of one log in a page, at the least."""

router = APIRouter(route_class=CheckedRoute, tags=["jobs"])


@router.get("/jobs/{ref}/events", responses=answers(EVENTS, 404, 409))
async def events(
    ref: Ref, chosen: Annotated[EventFilter, Query()], request: Request, _who: Reader, services: Deps
) -> Response:
    """What happened to a job after the event `after`. `done`: it has ended, and there will be nothing more."""
    job_id = (await run_in_threadpool(services.ledger.job, ref)).id
    found, done = await services.notifier.poll(
        [about(job_id)],
        partial(run_in_threadpool, services.ledger.follow, job_id, chosen.after, chosen.limit),
        any,
        chosen.wait,
        request.is_disconnected,
    )
    return answer({"events": [event.to_dict() for event in found], "done": done})


@router.get(
    "/jobs/{ref}/events/stream",
    response_class=StreamingResponse,
    responses={
        **answers(None, 404, 409),
        200: {"description": "Documents as of `events`, a line each.", "content": {_LINES: {"schema": _STRING}}},
    },
)
async def event_stream(
    ref: Ref, after: Annotated[int, Query(ge=0, le=LARGEST)] = 0, *, _who: Reader, services: Deps
) -> Response:
    """What happens to a job, as it happens: a line of JSON each time, as `events` answers, and an empty line where
    nothing has happened for a while. It ends with the job, and sometimes before: then ask on from the last event."""
    job_id = (await run_in_threadpool(services.ledger.job, ref)).id
    return StreamingResponse(_event_lines(services, job_id, after), media_type=_LINES)


async def _event_lines(services: Services, job_id: str, after: int) -> AsyncIterator[bytes]:
    until = time.monotonic() + _STREAM_SECONDS * random.uniform(0.8, 1.0)  # many have begun in the same moment
    with services.notifier.listening([about(job_id)]) as woken:
        woken.set()  # what has happened before it listened is told at once
        while time.monotonic() < until and not services.notifier.closed:
            if not await is_set_within(woken, _QUIET_SECONDS):
                yield b"\n"
                continue
            woken.clear()
            try:
                found, done = await run_in_threadpool(services.ledger.follow, job_id, after, _MOST_EVENTS)
            except EpochalError:
                return  # such as a database that is away: whoever listens asks again, and is told
            if found or done:
                yield json_bytes({"events": [event.to_dict() for event in found], "done": done}) + b"\n"
            if done:
                return
            if found:
                after = found[-1].id
            if len(found) == _MOST_EVENTS:
                woken.set()


@router.get("/jobs/{ref}/logs", responses=answers(LOGS, 404, 409))
async def logs(
    ref: Ref, chosen: Annotated[LogFilter, Query()], request: Request, _who: Reader, services: Deps
) -> Response:
    """What a job's workers print, from `cursor` on: that of the answer before, or none to begin with.

    `tail`: of the newest attempt, the last lines of each rank. `done`: the job has ended, and all was read.
    """
    job_id = (await run_in_threadpool(services.ledger.job, ref)).id

    async def look() -> tuple[LogPage, bool]:
        is_over = (await run_in_threadpool(services.ledger.job, job_id)).state.is_terminal
        read = partial(next_page, services.logs, job_id, chosen, is_over)
        page = await services.storage_threads.run(read)
        return page, is_over and page.at_end

    page, done = await services.notifier.poll(
        [logs_of(job_id)], look, lambda seen: bool(seen[0].chunks) or seen[1], chosen.wait, request.is_disconnected
    )
    return answer({"chunks": page.chunks, "cursor": page.cursor, "done": done})


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
    cursor = cursor_text(positions)
    if len(cursor) > LONGEST_CURSOR and not (is_over and at_end):  # it would be refused with the next question
        raise UsageError(f"these are too many logs to be read together: {len(logs):,}", "name a rank, or an attempt")
    return LogPage(tuple(chunks), cursor, at_end)


def _tails(store: LogStore, job_id: str, logs: dict[Stream, Log], lines: int) -> dict[Stream, int]:
    """The newest attempt's last lines; of older ones nothing, unless there is no newer one."""
    newest = max((stream.attempt for stream in logs), default=0)
    return {
        stream: store.tail(job_id, stream, log, lines) if stream.attempt == newest else log.end
        for stream, log in logs.items()
    }
