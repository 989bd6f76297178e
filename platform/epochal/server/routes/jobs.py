"""Jobs: submit, look, stop, pause, resume, retry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from epochal.errors import NotFoundError
from epochal.ledger.states import JobState
from epochal.ledger.values import FullJob, Job, Role, Why
from epochal.server.auth import Principal, Reader, Submitter, require_own
from epochal.server.error_responses import answer
from epochal.server.openapi import answers
from epochal.server.requests import CheckedRoute
from epochal.server.schemas import ATTEMPTS, JOBS, QUEUE, SUBMITTED, Asked, AskedToEnd, JobFilter, Submission
from epochal.server.services import Deps, Services
from epochal.server.spec_check import checked, require_code

router = APIRouter(route_class=CheckedRoute, tags=["jobs"])

_A_JOB = "A job's id, a unique beginning of it, or its name (the newest)."
Ref = Annotated[str, Path(min_length=1, max_length=100, description=_A_JOB)]
_MAX_DIFF = 256 * 1024

_SUBMITTED = answers(SUBMITTED, 404, 409, 413, 422, status=201)


@router.post("/jobs", status_code=201, responses={**_SUBMITTED, 200: {"model": SUBMITTED}})
async def submit(body: Submission, request: Request, who: Submitter, services: Deps) -> Response:
    """Queue a job. With a key that was used before, gives the job of that time (200), and queues nothing."""
    await _require_package(services, body.code, f"send it first: PUT /api/v1/code/{body.code}")
    return await run_in_threadpool(_submitted, body, who, services, request.state.request_id)


def _submitted(body: Submission, who: Principal, services: Services, request_id: str) -> Response:
    spec = services.ledger.with_earlier_found(checked(body.spec), body.key, who.user)
    require_code(spec, body.code)
    origin = body.model_dump(exclude={"spec", "key"})
    origin["git_diff"] = body.git_diff.encode()[:_MAX_DIFF].decode(errors="ignore")
    job = services.ledger.submit(
        spec.model_dump(mode="json"),
        name=spec.name,
        priority=spec.priority,
        key=body.key,
        submitted_by=who.user,
        origin={**origin, "request_id": request_id},  # which tells whether this very request made the job
    )
    created = job.origin.get("request_id") == request_id
    same = services.ledger.same_finished(job.spec_digest, body.code) if created else None
    services.notifier.changed()
    document = {"job": job.to_dict(), "created": created, "same_as": same.id if same else None}
    return answer(document, 201 if created else 200)


@router.get("/jobs", responses=answers(JOBS))
def jobs(chosen: Annotated[JobFilter, Query()], _who: Reader, services: Deps) -> Response:
    """Jobs, newest first. `next`, where it is not null, is the `before` of the next page; the first page tells the
    `total` then."""
    which: dict[str, Any] = {"name": chosen.name, "submitted_by": chosen.user, "queue": chosen.queue}
    found = services.ledger.jobs(chosen.state, chosen.limit + 1, before=chosen.before, **which)
    page = found[: chosen.limit]
    following = page[-1].number if len(found) > len(page) else None
    is_first_of_many = following is not None and chosen.before is None
    total = services.ledger.job_count(chosen.state, **which) if is_first_of_many else None
    return answer({"jobs": [job.to_dict() for job in page], "next": following, "total": total})


@router.get("/jobs/{ref}", responses=answers(FullJob, 404, 409))
def job(ref: Ref, who: Reader, services: Deps) -> Response:
    """One job, with its spec and origin. Of others' jobs the values of `spec.env` and the uncommitted changes are left
    out."""
    return answer(shown(services.ledger.full_job(ref), who))


@router.get("/jobs/{ref}/attempts", responses=answers(ATTEMPTS, 404, 409))
def attempts(ref: Ref, _who: Reader, services: Deps) -> Response:
    """A job's attempts, oldest first."""
    found = services.ledger.attempts(services.ledger.job(ref).id)
    return answer({"attempts": [attempt.to_dict() for attempt in found]})


@router.get("/jobs/{ref}/why", responses=answers(Why, 404, 409))
def why(ref: Ref, _who: Reader, services: Deps) -> Response:
    """Why a job does not run, and the smallest change that would start it."""
    return answer(services.ledger.why(ref).to_dict())


@router.get("/queue", responses=answers(QUEUE))
def queue(_who: Reader, services: Deps, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000) -> Response:
    """The queued jobs in order, each with why it waits; `total`, how many wait."""
    entries = services.ledger.queue(limit)
    total = services.ledger.counts()[JobState.QUEUED] if len(entries) == limit else len(entries)
    return answer({"queue": [entry.to_dict() for entry in entries], "total": max(total, len(entries))})


@router.post("/jobs/{ref}/stop", responses=answers(Job, 404, 409, 413))
def stop(ref: Ref, who: Submitter, services: Deps, body: AskedToEnd | None = None) -> Response:
    """End a job for good. One with workers is STOPPING until they have ended."""
    asked = body or AskedToEnd()
    return _change(services, who, ref, lambda job: services.ledger.request_stop(job.id, asked.message, asked.grace))


@router.post("/jobs/{ref}/pause", responses=answers(Job, 404, 409, 413))
def pause(ref: Ref, who: Submitter, services: Deps, body: AskedToEnd | None = None) -> Response:
    """Take a job off the cluster, or out of the queue, until it is resumed."""
    asked = body or AskedToEnd()
    return _change(services, who, ref, lambda job: services.ledger.request_pause(job.id, asked.message, asked.grace))


@router.post("/jobs/{ref}/resume", responses=answers(Job, 404, 409, 413))
def resume(ref: Ref, who: Submitter, services: Deps, body: Asked | None = None) -> Response:
    """Queue a PAUSED job again."""
    return _change(services, who, ref, lambda job: services.ledger.resume(job.id, _said(body)))


@router.post("/jobs/{ref}/retry", responses=answers(FullJob, 404, 409, 413))
async def retry(ref: Ref, who: Submitter, services: Deps, body: Asked | None = None) -> Response:
    """Queue the spec of a job that has ended as a new job: that one is the answer."""
    job = await require_startable(services, ref, who)
    again = await run_in_threadpool(services.ledger.retry_job, job.id, who.user, _said(body))
    services.notifier.changed()
    return answer(again.to_dict())


async def require_startable(services: Services, ref: str, who: Principal) -> FullJob:
    """The job, whose user asks for another attempt at it.

    Raises:
        ForbiddenError: it is somebody else's.
        NotFoundError: it has ended, and what it was submitted with is not kept any more: it could not start again.
    """
    job = await run_in_threadpool(services.ledger.full_job, ref)
    require_own(job, who)
    if job.state.is_terminal:
        hint = "it was as old as --retain of the server says: submit the spec again, with its code"
        await _require_package(services, job.origin.get("code"), hint)
    return job


async def _require_package(services: Services, digest: str | None, hint: str) -> None:
    if digest and not await services.storage_threads.run(partial(services.code.holds, digest)):
        raise NotFoundError("code package", digest, hint=hint)


def shown(job: FullJob, who: Principal) -> dict[str, Any]:
    """A job for whoever asks. What may be private is its owner's and the administrators': others read that it is."""
    document = job.to_dict()
    is_owner = who.user == job.submitted_by and who.role is not Role.AGENT
    if who.role is Role.ADMIN or is_owner:
        return document
    hidden = f"*** (shown to {job.submitted_by or 'nobody'} and administrators)"
    if env := job.spec.get("env"):
        document["spec"]["env"] = dict.fromkeys(env, hidden)
    if job.origin.get("git_diff"):
        document["origin"]["git_diff"] = hidden
    return document


def _change(services: Services, who: Principal, ref: str, change: Callable[[Job], Job]) -> Response:
    changed = change(require_own(services.ledger.job(ref), who))
    services.notifier.changed()
    return answer(changed.to_dict())


def _said(body: Asked | None) -> str:
    return body.message if body else ""
