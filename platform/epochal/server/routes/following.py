"""A job's events and logs, from where the reader is; with `wait`, as soon as there is something new."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from epochal.errors import EpochalError
from epochal.server.auth import Reader
from epochal.server.error_responses import answer, as_json
from epochal.server.log_pages import LogPage, next_page
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
        woken.set()
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
                yield as_json({"events": [event.to_dict() for event in found], "done": done}) + b"\n"
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
