"""What is recorded of jobs is made to agree with the ledger: the desired runs in their folders, and those in MLflow.

A process that died left a desired run open, metrics unsent, a run RUNNING; so did one that could not reach MLflow
before it was gone. Whoever comes next reconciles that, here: the next command on this machine, the housekeeping of an
agent, the reconciler of the server. They differ in which jobs they may touch, and in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from epochal.tracking.connection import answering, connect, experiment_names, is_missing
from epochal.tracking.desired_run import CLOSED_AS, JOB_ID_TAG, REASON_TAG, DesiredRun, closed_by, desired_run_time
from epochal.tracking.metric_spool import unsent_segments
from epochal.tracking.sync_state import SyncState, can_be_sent, has_news, is_pending, readable, tell_news
from epochal.tracking.syncer import Synced
from epochal.tracking.tracker import sync_folders
from epochal.tracking.trial_runs import PARENT_TAG, SWEEP_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

RUN_STATUS: Mapping[str, str] = MappingProxyType({**CLOSED_AS, "QUEUED": "SCHEDULED", "RUNNING": "RUNNING"})
"""What a run should say, by its job's state. A job that is STARTING or STOPPING is between two of them."""

DELETED = "deleted"
_OPEN = ("RUNNING", "SCHEDULED")
_PAGE = 500


class Job(Protocol):
    """What is asked of a ledger's job; ``entered_at``: since when it is in its state, in Unix seconds."""

    @property
    def state(self) -> str: ...

    @property
    def reason(self) -> str | None: ...

    @property
    def entered_at(self) -> float: ...


class JobFolders:
    """The folders of jobs under a storage root, as far as nobody works at the job.

    ``idle`` is asked with a job's id: the job, or None where somebody works at it, or it is another ledger's.
    """

    def __init__(self, storage: Path, idle: Callable[[str], Job | None]) -> None:
        self._storage = storage
        self._idle = idle
        self._done_with: dict[str, int] = {}

    def unsent(self) -> list[Path]:
        """Those that hold what MLflow does not have."""
        return [folder for folder, _ in self._unsent()]

    def unsent_bytes(self) -> int:
        """Metrics that MLflow does not have, those of jobs that somebody works at included."""
        return sum(map(self._unsent_bytes, self._storage.glob("jobs/*")))

    def close_desired_runs(self) -> None:
        """Have every desired run that was left open say how its job stands, since when."""
        for folder, job in self._left():
            _close(folder, job)

    def send(self, uri: str, deadline_seconds: float) -> dict[str, Synced]:
        """Send what MLflow lacks, the desired run closed before: what came of it, by job id.

        mlflow is imported only where there is something to send.
        """
        unsent = self._unsent()
        for folder, job in unsent:
            _close(folder, job)
        return sync_folders(uri, [folder for folder, _ in unsent], deadline_seconds)

    def tell_news(self, tell: Callable[[str, str], object]) -> None:
        """Have ``tell`` called with a job's id and what its ledger has not heard yet of how MLflow takes its run."""
        for folder, _ in self._left():
            with readable(folder):
                tell_news(folder, partial(tell, folder.name))

    def _unsent(self) -> list[tuple[Path, Job]]:
        return [(folder, job) for folder, job in self._left() if can_be_sent(folder)]

    def _left(self) -> Iterator[tuple[Path, Job]]:
        """Those with an open desired run, or something to send or to tell. Whose job it is, is only asked of these."""
        for path in sorted(self._storage.glob("jobs/*")):
            if self._is_left(path) and (job := self._idle(path.name)) is not None:
                yield path, job

    def _unsent_bytes(self, folder: Path) -> int:
        with readable(folder):
            if desired_run_time(folder) not in (None, self._done_with.get(folder.name)):
                return sum(size - sent for _, sent, size in unsent_segments(folder, SyncState.load(folder).offsets))
        return 0

    def _is_left(self, folder: Path) -> bool:
        with readable(folder):
            changed = desired_run_time(folder)
            if changed in (None, self._done_with.get(folder.name)):
                return False
            if DesiredRun.load(folder).status == "RUNNING" or is_pending(folder) or has_news(folder):
                return True
            # Of the thousands that ended long ago none is read again; one that was only paused is, once it is resumed.
            self._done_with[folder.name] = changed
        return False


def _close(folder: Path, job: Job) -> None:
    with readable(folder):
        desired = DesiredRun.load(folder)
        if desired.status == "RUNNING" and (changes := closed_by(job.state, job.reason, job.entered_at)):
            desired.changed(**changes).save(folder)


@dataclass(frozen=True)
class Truth:
    """What a run should say. ``at``: since when, in Unix seconds; a run that is over ended then."""

    status: str
    reason: str
    at: float


@dataclass(frozen=True)
class Difference:
    """A run that says something else than the truth about its job. ``parent`` is the sweep's own run, for a trial's."""

    run_id: str
    job_id: str
    found: str
    truth: Truth
    parent: str = ""

    def is_still(self, truth: Callable[[str, str], Truth | None]) -> bool:
        """Whether the truth has not changed since."""
        return _truth_of(self, truth) == self.truth


def differences(uri: str, known: Mapping[str, str], truth: Callable[[str, str], Truth | None]) -> list[Difference]:
    """The runs whose status is not the truth: of those that MLflow holds to be open, and of the ``known`` ones, of
    which those that somebody deleted are ``DELETED``.

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
    compared = ((one, _truth_of(one, truth)) for one in found)
    return [
        Difference(one.run_id, one.job_id, one.status, true, one.parent)
        for one, true in compared
        if true and true.status != one.status
    ]


def correct(uri: str, difference: Difference) -> None:
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
    parent: str = ""


def _truth_of(one: _Found | Difference, truth: Callable[[str, str], Truth | None]) -> Truth | None:
    """What a run should say. A trial's is over with its sweep; until then the sweep knows."""
    true = truth(one.job_id, one.parent or one.run_id)
    if true is None or not one.parent:
        return true
    if true.status in _OPEN:
        return None
    return replace(true, status="FINISHED" if true.status == "FINISHED" else "KILLED")


def _open_runs(client: MlflowClient) -> Iterator[_Found]:
    """Every run that is not over: of a job, or of a sweep's trial, whose job is the sweep."""
    experiments = list(experiment_names(client))
    for status, tag in product(_OPEN, (JOB_ID_TAG, SWEEP_TAG)):
        condition = f"attributes.status = '{status}' AND tags.`{tag}` LIKE '%'"
        token: str | None = None
        while True:
            page = client.search_runs(experiments, condition, max_results=_PAGE, page_token=token)
            yield from (_entry(run, tag) for run in page)
            token = page.token
            if not token:
                break


def _entry(run: Run, tag: str) -> _Found:
    tags = run.data.tags
    return _Found(run.info.run_id, tags[tag], run.info.status, tags.get(PARENT_TAG, "") if tag == SWEEP_TAG else "")


def _status(client: MlflowClient, run_id: str) -> str | None:
    """The run's status, ``DELETED`` where somebody deleted it; None where this server has no such run."""
    try:
        info = client.get_run(run_id).info
    except Exception as error:
        if is_missing(error):
            return None
        raise
    return DELETED if info.lifecycle_stage == "deleted" else str(info.status)
