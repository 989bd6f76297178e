"""What an agent asks of whoever has the jobs: a ledger in this process, or one behind a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from epochal.backoff import pause_after
from epochal.errors import AuthError, UnreachableError
from epochal.ledger.capacity import Group, Node
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.ledger.sweep_values import NewInput, StoredInput, SweepRequest, TrialRecord
from epochal.ledger.values import AgentInfo, Attempt, Held, HeldShare, Job, Lease, Renewed

T = TypeVar("T")

AWAY = (UnreachableError, AuthError)
"""Of a source that is to be asked again. A token that is refused says nothing about what is told, and nothing of the
job: whoever runs the server may accept it again."""


class JobSource(Protocol):
    """Safe to use from several threads. Every call may raise ``UnreachableError`` and be made again.

    Calls with a lease raise ``StaleLeaseError`` once the attempt was ended by someone else.
    """

    def heartbeat(
        self,
        name: str,
        incarnation: str,
        nodes: Sequence[Node],
        held: Sequence[HeldShare],
        detail: Mapping[str, Any],
        storage: str | None = None,
    ) -> AgentInfo:
        """The agent lives: its nodes, of which what is ``held`` is taken already, and the id of its storage."""

    def provision(self, agent: str, groups: Sequence[Group]) -> Mapping[str, int]:
        """What worker groups the cluster of ``agent`` (``name/incarnation``) has, and could have; of how many nodes of
        each the queue, and what runs, could make use."""

    def lease(self, agent: str, ttl: float, *, wait: float = 0.0, secret: str = "") -> Lease | None:
        """The next job for ``agent`` (``name/incarnation``); None where none came in ``wait`` s.

        Asked once more with the same ``secret``, because no answer came, it gives the same lease.
        """

    def renew(self, lease: Lease, ttl: float, progress: Mapping[str, Any] | None = None) -> Renewed:
        """Keep the lease; STOPPING says that the job was asked to end, ``granted`` how many workers it may have."""

    def running(self, lease: Lease, world_size: int, detail: Mapping[str, Any] | None = None) -> Job:
        """The gang trains, with this many workers; told again, their number has changed."""

    def set_run(self, lease: Held, run_id: str, tracking_uri: str, experiment_id: str | None = None) -> Job:
        """The job's MLflow run, and MLflow's id of its experiment."""

    def set_data(self, lease: Lease, data: Mapping[str, Any]) -> None:
        """What the attempt took its data for."""

    def saved(self, lease: Lease, step: int, path: str) -> None:
        """A checkpoint is complete."""

    def note(
        self,
        lease: Held,
        /,
        kind: EventKind,
        message: str = "",
        detail: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Job:
        """Record an event; with a ``key`` once, however often it is told."""

    def finish(self, lease: Lease, state: JobState, reason: Reason, message: str = "") -> Job:
        """The job has ended for good."""

    def retry(self, lease: Lease, reason: Reason, message: str = "", lost: bool = False) -> Job:
        """The attempt has ended; the job queues again, or becomes what it was asked to be. ``lost``: Ray, or the agent
        itself, went down with it."""

    def lease_again(self, lease: Lease, ttl: float, reason: Reason, message: str = "") -> Lease | None:
        """The attempt has failed: the lease of the next one. None where the job was asked to be something else, and has
        become that."""

    def pause(self, lease: Lease, reason: Reason = Reason.STOPPED_BY_USER, message: str = "") -> Job:
        """The attempt has ended; the job waits for its user."""

    def stopped(self, lease: Lease, message: str = "") -> Job:
        """The gang of a STOPPING job has ended as asked."""

    def now(self) -> float:
        """The time by the clock of the source, in seconds since 1970."""

    def job(self, ref: str) -> Job: ...

    def attempts(self, job_id: str) -> list[Attempt]: ...

    def append_inputs(
        self, lease: Held, after_seq: int, told: Sequence[NewInput], changed: Sequence[TrialRecord] = ()
    ) -> int:
        """Write down what a sweep's controller was told, following the input ``after_seq``, and the trials that changed
        with it; the number of the newest. The same told again changes nothing."""

    def set_trial_runs(self, lease: Held, run_ids: Mapping[int, str]) -> None:
        """The MLflow runs of a sweep's trials, by their numbers; also after the attempt's end."""

    def inputs(self, job_id: str) -> list[StoredInput]:
        """What the controller of a sweep was told, in order."""

    def trials(self, job_id: str) -> list[TrialRecord]:
        """The trials of a sweep by number."""

    def requests(self, job_id: str, after: int = 0) -> list[SweepRequest]:
        """What users asked of a sweep, from the one following the number ``after``: ``Renewed.requested`` is the
        newest. An input that is made of one has its key."""

    def fetch_code(self, digest: str, into: Path) -> Path:
        """The package as ``<into>/<digest>.zip``; fetched where it is not there."""

    def append_log(self, lease: Held, rank: int, offset: int, data: bytes) -> int:
        """Add what begins at byte ``offset`` of a rank's log; the offset to go on from: less where bytes miss."""


def patiently(call: Callable[[], T], given_up: Callable[[], bool]) -> T:
    """What ``call`` asks of a source, which is made again while that is ``AWAY``.

    Raises:
        UnreachableError, AuthError: it did not answer, and is ``given_up``.
    """
    failures = 0
    while True:
        try:
            return call()
        except AWAY:
            if given_up():
                raise
        failures += 1
        time.sleep(pause_after(failures))
