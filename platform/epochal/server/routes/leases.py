"""What an agent tells about a job that it leased. Once the attempt is over, all but its logs, its run
and what MLflow takes of that is refused (409)."""

from __future__ import annotations

from functools import partial
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from epochal import names
from epochal.errors import ConflictError, EpochalError, UsageError, as_document
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Held, Job, Lease, Renewal, Role
from epochal.server import schemas
from epochal.server.auth import requires
from epochal.server.error_responses import answer, error_response
from epochal.server.log_store import Stream
from epochal.server.notifier import logs_of, room_of
from epochal.server.openapi import answers, error_responses
from epochal.server.requests import LeaseRoute
from epochal.server.services import Deps, Services

router = APIRouter(route_class=LeaseRoute, tags=["agents"], dependencies=[Depends(requires(Role.AGENT, Role.ADMIN))])

JobId = Annotated[str, Path(pattern=names.JOB_ID)]
Epoch = Annotated[int, Path(ge=1, le=schemas.LAST_EPOCH)]
_OF_LEASE = "What the lease was asked for with. That of another lease, or none, is refused (409)."
Secret = Annotated[str, Header(alias="Lease-Secret", max_length=schemas.LONGEST_SECRET, description=_OF_LEASE)]


class Claim(NamedTuple):
    """Whoever shows ``secret`` says that it holds this attempt: ``ledger.held`` knows."""

    job_id: str
    epoch: int
    secret: str


async def _claimed(job_id: JobId, epoch: Epoch, secret: Secret) -> Claim:
    return Claim(job_id, epoch, secret)


Claimed = Annotated[Claim, Depends(_claimed)]
_JOB = answers(Job, 404, 409, 413)
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@router.post("/leases/renew", responses=answers(schemas.RENEWED, 413))
def renew(body: schemas.Renewals, services: Deps) -> Response:
    """Keep leases for `ttl` seconds more: all of an agent's at once, each with its `secret`. For each in its order the
    state of its job, where STOPPING says that it was asked to stop, within `grace` seconds where that is not null, or
    the error that it alone met."""
    renewals = [Renewal(one.job_id, one.epoch, one.secret, one.progress) for one in body.leases]
    renewed = services.ledger.renew_all(renewals, body.ttl)
    told = [{"error": as_document(one)} if isinstance(one, EpochalError) else one.to_dict() for one in renewed]
    return answer({"leases": told})


@router.post("/leases/{job_id}/{epoch}/running", responses=_JOB)
def running(claim: Claimed, body: schemas.Began, services: Deps) -> Response:
    """The gang trains, with so many workers."""
    lease = services.ledger.held(*claim)
    return _told(services, lease, services.ledger.running(lease, body.world_size, body.detail))


@router.post("/leases/{job_id}/{epoch}/run", responses=_JOB)
def run(claim: Claimed, body: schemas.RunOf, services: Deps) -> Response:
    """The job's MLflow run."""
    lease = services.ledger.held(*claim)
    return _told(services, lease, services.ledger.set_run(lease, body.run_id, body.tracking_uri, body.experiment_id))


@router.post("/leases/{job_id}/{epoch}/data", responses=answers(schemas.STATUS, 404, 409, 413))
def data(claim: Claimed, body: schemas.DataOf, services: Deps) -> Response:
    """What the attempt took its data for: it is shown with the job, and is no event."""
    services.ledger.set_data(services.ledger.held(*claim), body.data)
    return answer({"status": "ok"})


@router.post("/leases/{job_id}/{epoch}/saved", responses=answers(schemas.STATUS, 404, 409, 413))
def saved(claim: Claimed, body: schemas.SavedAt, services: Deps) -> Response:
    """A checkpoint is complete: it is shown with the attempt, and is no event."""
    services.ledger.saved(services.ledger.held(*claim), body.step, body.path)
    return answer({"status": "ok"})


@router.post("/leases/{job_id}/{epoch}/note", responses=_JOB)
def note(claim: Claimed, body: schemas.Noted, services: Deps) -> Response:
    """Record an event."""
    lease = services.ledger.held(*claim)
    return _told(services, lease, services.ledger.note(lease, body.kind, body.message, body.detail, body.key))


@router.post("/leases/{job_id}/{epoch}/finish", responses=_JOB)
def finish(claim: Claimed, body: schemas.Finished, services: Deps) -> Response:
    """The job has ended for good."""
    if not body.state.is_terminal or (body.state is JobState.SUCCEEDED) != (body.reason is Reason.COMPLETED):
        raise UsageError(f"a job cannot finish as {body.state} with the reason {body.reason}")
    lease = services.ledger.held(*claim)
    return _told(services, lease, services.ledger.finish(lease, body.state, body.reason, body.message))


@router.post("/leases/{job_id}/{epoch}/retry", responses=_JOB)
def retry(claim: Claimed, body: schemas.HandedBack, services: Deps) -> Response:
    """The attempt has failed or was handed back; the job queues again."""
    lease = services.ledger.held(*claim)
    return _told(services, lease, services.ledger.retry(lease, body.reason, body.message, body.lost))


@router.post(
    "/leases/{job_id}/{epoch}/again",
    responses={
        **answers(Lease, 404, 409, 413),
        204: {"description": "The job was asked to be something else, and has become that."},
    },
)
def again(claim: Claimed, body: schemas.Failed, services: Deps) -> Response:
    """The attempt has failed, and the same agent makes the next one: its lease."""
    lease = services.ledger.held(*claim)
    following = services.ledger.lease_again(lease, body.ttl, body.reason, body.message)
    services.notifier.changed()
    return Response(status_code=204) if following is None else answer(following.to_dict())


@router.post("/leases/{job_id}/{epoch}/pause", responses=_JOB)
def pause(claim: Claimed, body: schemas.Paused, services: Deps) -> Response:
    """The attempt has ended, and the job waits to be resumed."""
    lease = services.ledger.held(*claim)
    return _told(services, lease, services.ledger.pause(lease, body.reason, body.message))


@router.post("/leases/{job_id}/{epoch}/stopped", responses=_JOB)
def stopped(claim: Claimed, body: schemas.Stopped, services: Deps) -> Response:
    """The gang of a STOPPING job has ended as asked."""
    lease = services.ledger.held(*claim)
    return _told(services, lease, services.ledger.stopped(lease, body.message))


@router.post(
    "/leases/{job_id}/{epoch}/logs/{rank}",
    responses={**answers(schemas.NEXT, 404, 413), **error_responses(409, model=schemas.LogErrorBody)},
    openapi_extra={"requestBody": {"required": True, "content": _BYTES}},
)
async def logs(
    claim: Claimed,
    rank: Annotated[int, Path(ge=0, le=1_000_000)],
    asked: Annotated[schemas.LogOffset, Query()],
    request: Request,
    services: Deps,
) -> Response:
    """Add what starts at byte `offset` of a rank's log. What is held already is left out; a gap is refused (409)."""
    data = await request.body()

    await run_in_threadpool(services.ledger.held, *claim)
    append = partial(services.logs.append, claim.job_id, Stream(claim.epoch, rank), asked.offset, data)
    end = await services.storage_threads.run(append)
    if end < asked.offset:
        hint = "send it again from `next`"
        return error_response(
            ConflictError(f"this log has {end} bytes: what is before {asked.offset} is missing", hint), next=end
        )
    services.notifier.notify(logs_of(claim.job_id))
    return answer({"next": end})


def _told(services: Services, lease: Held, job: Job) -> Response:
    services.notifier.changed()
    if not job.state.is_active:  # its agent has room; the watcher, which rests between two looks, would tell it later
        services.notifier.notify(room_of(lease.agent.partition("/")[0]))
    return answer(job.to_dict())
