"""Whether MLflow tells the truth about how runs stand, and putting right what it does not.

A run is left RUNNING by an agent that died, and by one that could not reach MLflow before it was gone. What is true,
the ledger knows; this module asks for it and compares, run by run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from epochal.tracking.connection import answering, connect, experiment_names, is_missing
from epochal.tracking.record import CLOSED_AS, JOB_ID_TAG, REASON_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

RUN_STATUS: Mapping[str, str] = MappingProxyType({**CLOSED_AS, "QUEUED": "SCHEDULED", "RUNNING": "RUNNING"})
"""What a run should say, by its job's state. A job that is STARTING or STOPPING is between two of them."""

_OPEN = ("RUNNING", "SCHEDULED")
_PAGE = 500
_PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class Truth:
    """What a run should say. ``at``: since when, in Unix seconds; a run that is over ended then."""

    status: str
    reason: str
    at: float


@dataclass(frozen=True)
class Difference:
    """A run that says something else than the truth about its job."""

    run_id: str
    job_id: str
    found: str
    truth: Truth


def differences(uri: str, known: Mapping[str, str], truth: Callable[[str, str], Truth | None]) -> list[Difference]:
    """The runs whose status is not the truth: of those that MLflow holds to be open, and of the ``known`` ones.

    Args:
        known: job ids by run id.
        truth: asked with a job's id and a run's; None leaves that run alone.

    Raises:
        UnreachableError: the tracking server does not answer.
    """
    with answering(uri):
        client = connect(uri)
        found = list(_open_runs(client))
        for run_id in known.keys() - {entry.run_id for entry in found}:
            if status := _status(client, run_id):
                found.append(_Found(run_id, known[run_id], status))
    compared = ((one, truth(one.job_id, one.run_id)) for one in found)
    return [
        Difference(one.run_id, one.job_id, one.status, true)
        for one, true in compared
        if true and true.status != one.status
    ]


def put_right(uri: str, difference: Difference) -> None:
    """Have the run say what is true.

    Raises:
        UnreachableError: the tracking server does not answer.
    """
    truth = difference.truth
    with answering(uri):
        client = connect(uri)
        client.set_tag(difference.run_id, REASON_TAG, truth.reason)
        if truth.status in _OPEN:
            client.update_run(difference.run_id, status=truth.status)
        else:
            client.set_terminated(difference.run_id, truth.status, end_time=int(truth.at * 1000))


class _Found(NamedTuple):
    run_id: str
    job_id: str
    status: str


def _open_runs(client: MlflowClient) -> Iterator[_Found]:
    """Every run of a job that is not over. Trials are their sweep's business."""
    experiments = list(experiment_names(client))
    for status in _OPEN:
        condition = f"attributes.status = '{status}' AND tags.`{JOB_ID_TAG}` LIKE '%'"
        token: str | None = None
        while True:
            page = client.search_runs(experiments, condition, max_results=_PAGE, page_token=token)
            yield from (_entry(run) for run in page if _PARENT_TAG not in run.data.tags)
            token = page.token
            if not token:
                break


def _entry(run: Run) -> _Found:
    return _Found(run.info.run_id, run.data.tags[JOB_ID_TAG], run.info.status)


def _status(client: MlflowClient, run_id: str) -> str | None:
    """The run's status; None where this server has no such run, or somebody deleted it."""
    try:
        info = client.get_run(run_id).info
    except Exception as error:
        if is_missing(error):
            return None
        raise
    return None if info.lifecycle_stage == "deleted" else str(info.status)
