"""All that the page shows, in one answer, and where MLflow shows the runs of jobs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from epochal import __version__
from epochal.ledger.json_values import iso
from epochal.ledger.states import ACTIVE, JobState
from epochal.ledger.values import Job
from epochal.server.auth import Reader
from epochal.server.error_responses import answer
from epochal.server.openapi import answers
from epochal.server.schemas import Overview, Pages, PagesOf
from epochal.server.services import Deps
from epochal.tracking.pages import comparison_page, experiments_page, page_of, runs_page, web

router = APIRouter(tags=["overview"])

_BRIEF = (
    "id", "name", "state", "reason", "message", "submitted_by", "priority", "queue",
    "submitted_at", "entered_at", "ended_at", "run_id", "epoch",
)  # fmt: skip
_QUEUED, _RUNNING, _RECENT = 200, 200, 20
_OVER = tuple(state for state in JobState if state.is_terminal or state is JobState.PAUSED)


@router.get("/overview", responses=answers(Overview))
def overview(who: Reader, services: Deps) -> Response:
    """Counts, the queue with positions and reasons, running and recent jobs, agents."""
    ledger = services.ledger
    counts, now = ledger.counts(), ledger.now()
    queue = ledger.queue(_QUEUED) if counts[JobState.QUEUED] else []
    running = ledger.jobs(sorted(ACTIVE), _RUNNING)
    document = {
        "now": iso(now),
        "version": __version__,
        "user": who.user,
        "role": who.role,
        "counts": counts,
        "queue": [
            {"job": brief(entry.job, now), "position": entry.position, "why": entry.why.to_dict()} for entry in queue
        ],
        "queued_more": max(0, counts[JobState.QUEUED] - len(queue)),
        "running": [{**brief(job, now), "progress": job.progress} for job in running],
        "recent": [brief(job, now) for job in ledger.jobs(_OVER, _RECENT)],
        "agents": [agent.to_dict() for agent in ledger.agents()],
        "mlflow_url": experiments_page(root) if (root := web(services.settings.mlflow_uri)) else None,
    }
    return answer(document)


def brief(job: Job, now: float) -> dict[str, Any]:
    """A job without its spec."""
    known = job.to_dict()
    return {
        **{name: known[name] for name in _BRIEF},
        "pending_seconds": round(job.pending_seconds(now), 3),
        "running_seconds": round(job.running_seconds(now), 3),
        "run_url": page_of(job.tracking_uri, job.run_id, job.experiment_id),
        "runs_url": _runs_page(job),
    }


@router.get("/pages", responses=answers(Pages, 404, 409))
def pages(asked: Annotated[PagesOf, Query()], _who: Reader, services: Deps) -> Response:
    """Where MLflow shows the first of these jobs, and all of them beside each other."""
    jobs = [services.ledger.job(ref) for ref in asked.job]
    root = web(jobs[0].tracking_uri)
    here = [(job.run_id, job.experiment_id) for job in jobs if web(job.tracking_uri) == root]
    runs = [(run, experiment) for run, experiment in here if run and experiment]
    document = {
        "run": page_of(jobs[0].tracking_uri, jobs[0].run_id, jobs[0].experiment_id),
        "runs": _runs_page(jobs[0]),
        "comparison": comparison_page(root, runs) if root and len(runs) == len(jobs) > 1 else None,
    }
    return answer(document)


def _runs_page(job: Job) -> str | None:
    root = web(job.tracking_uri)
    return runs_page(root, job.experiment_id) if root and job.experiment_id else None
