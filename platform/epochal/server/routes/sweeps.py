"""Sweeps: their trials, what their controllers were told, and what users ask of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from epochal.ledger.sweep_values import Add, NewInput
from epochal.ledger.values import FullJob, Job, Role
from epochal.server import sweep_schemas as schemas
from epochal.server.auth import Principal, Reader, Submitter, requires
from epochal.server.error_responses import answer
from epochal.server.openapi import answers
from epochal.server.requests import CheckedRoute, LeaseRoute
from epochal.server.routes.jobs import Ref, require_startable
from epochal.server.routes.leases import Claimed
from epochal.server.schemas import STATUS
from epochal.server.services import Deps, Services
from epochal.server.spec_check import require_points

router = APIRouter(route_class=CheckedRoute, tags=["sweeps"])
lease_router = APIRouter(
    route_class=LeaseRoute, tags=["agents"], dependencies=[Depends(requires(Role.AGENT, Role.ADMIN))]
)


@router.get("/jobs/{ref}/trials", responses=answers(schemas.TRIALS, 404, 409))
def trials(ref: Ref, chosen: Annotated[schemas.TrialFilter, Query()], _who: Reader, services: Deps) -> Response:
    """The trials of a sweep by number, none of a training. `next`, where it is not null, is the `after` of the next
    page. `value` is the objective at `length`; numbers that JSON has no word for are text."""
    job = services.ledger.job(ref)
    found = services.ledger.trials(job.id, chosen.state, chosen.after, chosen.limit)
    following = found[-1].number if len(found) == chosen.limit else None
    return answer({"trials": [one.to_dict() for one in found], "next": following})


@router.get("/jobs/{ref}/inputs", responses=answers(schemas.INPUTS, 404, 409))
def inputs(ref: Ref, chosen: Annotated[schemas.InputFilter, Query()], _who: Reader, services: Deps) -> Response:
    """What the controller of a sweep was told, in order: the same inputs give the same trials. `next` as for trials."""
    job = services.ledger.job(ref)
    found = services.ledger.inputs(job.id, chosen.after, chosen.limit)
    following = found[-1].seq if len(found) == chosen.limit else None
    return answer({"inputs": [one.to_dict() for one in found], "next": following})


@router.get("/jobs/{ref}/requests", responses=answers(schemas.REQUESTS, 404, 409))
def requests(ref: Ref, asked: Annotated[schemas.After, Query()], _who: Reader, services: Deps) -> Response:
    """What users asked of a sweep, oldest first."""
    found = services.ledger.requests(services.ledger.job(ref).id, asked.after)
    return answer({"requests": [one.to_dict() for one in found]})


@router.post("/jobs/{ref}/requests", responses=answers(Job, 404, 409, 413, 422))
async def ask(ref: Ref, who: Submitter, services: Deps, body: schemas.AskedOfSweep) -> Response:
    """Ask for more trials, points or repetitions of a sweep, or for the end of a trial. A sweep that has ended is
    queued again; one that runs does it within seconds."""
    job = await require_startable(services, ref, who)
    return await run_in_threadpool(_asked, job, who, services, body)


def _asked(job: FullJob, who: Principal, services: Services, body: schemas.AskedOfSweep) -> Response:
    if isinstance(body.ask, Add):
        require_points(job, body.ask.points)
    changed = services.ledger.ask(job.id, body.ask.model_dump(mode="json"), body.key, who.user)
    services.notifier.changed()
    return answer(changed.to_dict())


@lease_router.post("/leases/{job_id}/{epoch}/inputs", responses=answers(schemas.WRITTEN, 404, 409, 413))
def append(claim: Claimed, body: schemas.Told, services: Deps) -> Response:
    """Write down what the controller was told, following the input `after`, and the trials that changed with it. The
    same told again changes nothing, and anything else in its place is refused (409)."""
    told = [NewInput(one.body, one.key) for one in body.inputs]
    lease = services.ledger.held(*claim)
    newest = services.ledger.append_inputs(lease, body.after, told, [one.record for one in body.trials])
    return answer({"newest": newest})


@lease_router.post("/leases/{job_id}/{epoch}/trial-runs", responses=answers(STATUS, 404, 409, 413))
def trial_runs(claim: Claimed, body: schemas.TrialRuns, services: Deps) -> Response:
    """The MLflow runs of trials, also once the attempt is over: those of the last are known only then."""
    lease = services.ledger.held(*claim)
    services.ledger.set_trial_runs(lease, {one.number: one.run_id for one in body.trials})
    return answer({"status": "ok"})
