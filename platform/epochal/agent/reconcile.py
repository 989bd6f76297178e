"""What commands on this machine reconcile: jobs of processes that died, their runs, and what MLflow has not got yet."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from epochal.engine.process import created
from epochal.errors import ConflictError, NotFoundError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import ACTIVE, JobState
from epochal.ledger.values import Attempt, Job
from epochal.settings import Home
from epochal.tracking.reconcile import JobFolders
from epochal.tracking.sync_state import SyncState
from epochal.tracking.syncer import Synced
from epochal.tracking.tracker import pending_folders, sync_folders


@dataclass(frozen=True)
class Reconciled:
    """``interrupted``: attempts whose process had died; ``synced``: what came of sending to MLflow, by job id."""

    interrupted: tuple[Attempt, ...]
    synced: Mapping[str, Synced]


def foreground_name() -> str:
    """This process as the holder of leases. Another on the same machine can tell whether it is still alive."""
    return f"run@{socket.gethostname()}/{os.getpid()}/{_created(os.getpid())}"


def is_dead(agent: str) -> bool:
    """Whether the foreground process that named itself so on this machine is gone. False where nobody can tell."""
    return _is_alive(agent) is False


def _is_alive(agent: str) -> bool | None:
    """None where nobody can tell."""
    parts = agent.removeprefix("run@").rsplit("/", 2)
    if not agent.startswith("run@") or len(parts) != 3 or parts[0] != socket.gethostname():
        return None
    return str(_created(int(parts[1]))) == parts[2]


def catch_up(home: Home, tracking_uri: str, deadline_seconds: float, served_at: str | None = None) -> Reconciled:
    """Jobs of processes that died become PAUSED and their runs KILLED; then everything unsent goes to MLflow.

    ``deadline_seconds`` is for MLflow alone. Nothing is done, and mlflow not imported, where all is well.
    ``served_at``: also of the jobs of ``epochal up``, which go there, as far as its agent has begun to send them.
    """
    until = time.monotonic() + deadline_seconds
    interrupted: list[Attempt] = []
    if home.ledger.exists():
        with Ledger.open(home.ledger_url) as ledger:
            interrupted = settle_interrupted(ledger, home)
    synced = sync_folders(tracking_uri, pending_folders(home.storage), deadline_seconds)
    if served_at is not None:
        begun = (folder for folder in pending_folders(home.served.storage) if SyncState.load(folder).uri)
        synced |= sync_folders(served_at, begun, until - time.monotonic())
    return Reconciled(tuple(interrupted), synced)


def settle_interrupted(ledger: Ledger, home: Home) -> list[Attempt]:
    """The ledger's part of ``catch_up``, and the runs' records: nothing that takes time."""
    alive = {job.owner: _is_alive(job.owner) for job in ledger.jobs(states=ACTIVE) if job.owner}
    dead, living = ([owner for owner, known in alive.items() if known is wanted] for wanted in (False, True))
    # One that lives has only been stopped for a while (Ctrl-Z, a laptop that slept), and goes on where it was.
    ended = ledger.expire(JobState.PAUSED, dead, living)
    # By the jobs' states and not by what ``expire`` has just ended: a process may have died before it came to this.
    JobFolders(home.storage, lambda job_id: _idle(ledger, job_id)).close_desired_runs()
    return ended


def _idle(ledger: Ledger, job_id: str) -> Job | None:
    try:
        job = ledger.job(job_id)
    except (NotFoundError, ConflictError):  # of another ledger
        return None
    return None if job.state.is_active or job.id != job_id else job


def _created(pid: int) -> int | None:
    """When the process began, in hundredths of a second since the system did; None where there is none."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(created(process) * 100)
    except psutil.NoSuchProcess:
        return None
