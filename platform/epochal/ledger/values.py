"""What the ledger holds, as frozen values. No database here: a thin client can use them.

Times are seconds since 1970 UTC by the database's clock; ``to_dict`` writes them as ISO 8601.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from epochal.ledger.capacity import Group, Node
from epochal.ledger.json_values import Seconds, Time, Value
from epochal.ledger.states import JobKind, JobState, Outcome, Reason


@dataclass(frozen=True)
class Job(Value):
    """What was submitted, and where it is; without its documents (``FullJob``)."""

    id: str
    number: int
    """Order of arrival in this ledger."""
    name: str
    key: str | None
    """Its submitter and the client's idempotency key: ``ada/nightly-7``."""
    spec_digest: str
    priority: int
    submitted_by: str

    state: JobState
    reason: Reason | None
    """Why it is in this state, where there is something to say."""
    message: str
    wanted: JobState | None
    """While STOPPING: the state asked for (STOPPED, PAUSED, or QUEUED when it makes room)."""

    epoch: int
    """Number of the newest attempt; 0 before the first."""
    owner: str | None
    """The agent that holds the lease."""
    expires_at: Time | None
    run_id: str | None
    tracking_uri: str | None
    progress: Mapping[str, Any] | None
    """The newest the agent told."""

    submitted_at: Time
    entered_at: Time
    """When it came into its state."""
    first_started_at: Time | None
    started_at: Time | None
    """When the newest attempt began to train."""
    ended_at: Time | None
    updated_at: Time
    waited_seconds: Seconds
    ran_seconds: Seconds

    queue: str = "default"
    """Quotas can be set for a queue; all are served in one order."""
    preemptible: bool = False
    """It may be asked to leave, at a checkpoint, for a job of higher priority."""
    experiment_id: str | None = None
    """MLflow's id of the experiment that the run is in."""
    grace: Seconds | None = None
    """While STOPPING: how long its workers have from when their agent hears of it; then they are killed. None: as long
    as it takes."""
    kind: JobKind = JobKind.TRAIN
    granted: int | None = None
    """While an agent has it: how many workers it may have at the most, as the queue policy says, of a sweep again and
    again. None: where no policy was asked."""

    def pending_seconds(self, now: float) -> float:
        """Time in QUEUED and STARTING over all attempts, until ``now`` (the database's clock: ``Ledger.now``)."""
        return self.waited_seconds + (self._here(now) if self.state.is_pending else 0.0)

    def running_seconds(self, now: float) -> float:
        """Time in which it trained, over all attempts, until ``now``."""
        trains = self.state.is_active and self.started_at is not None
        return self.ran_seconds + (self._here(now) if trains else 0.0)

    def _here(self, now: float) -> float:
        return max(0.0, now - self.entered_at)


@dataclass(frozen=True, kw_only=True)
class FullJob(Job):
    """A job with all that was submitted: much to read where only its state is asked for."""

    spec: Mapping[str, Any]
    origin: Mapping[str, Any]
    """What the submitter wrote down for whoever runs the job: its file, and where its data and its code are."""
    data: Mapping[str, Any] | None = None
    """What the newest attempt took its data for (``training.data_summary.DataSummary``), once it has read it."""


@dataclass(frozen=True)
class Attempt(Value):
    """One try at running a job. ``outcome`` is None while it is live."""

    job_id: str
    epoch: int
    agent: str
    leased_at: Time
    started_at: Time | None
    ended_at: Time | None
    outcome: Outcome | None
    reason: Reason | None
    message: str
    world_size: int | None
    detail: Mapping[str, Any]
    checkpoint_step: int | None = None
    """Of the newest checkpoint that it saved, as are the next two."""
    checkpoint_path: str | None = None
    checkpoint_at: Time | None = None
    storage: str | None = None
    """The storage that its agent's checkpoints are in."""


@dataclass(frozen=True)
class Event(Value):
    """Something that happened to a job; never changed afterwards. ``id`` grows: ask for those after the last one seen.

    ``previous`` and ``state`` are equal where the state did not change; ``previous`` is None for the submission.
    """

    id: int
    job_id: str
    epoch: int
    at: Time
    kind: str
    """One of ``EventKind``, or what a version newer than this one has added."""
    previous: JobState | None
    state: JobState
    reason: Reason | None
    message: str
    detail: Mapping[str, Any]


HeldShare = tuple[str, int, int] | tuple[str, int]
"""Job id, epoch, and how many workers an agent has, or looks for, room for; one of an older version does not say so."""

LEASE_SECONDS = 30.0
"""How long a lease lasts that nobody renews; agents renew theirs every two seconds."""

GRACE_SECONDS = 30.0
"""For workers that are asked to stop or pause, where whoever asks says nothing else."""
LONGEST_GRACE = 86_400.0


class Held(Protocol):
    """What the ledger wants to know of a lease: whose attempt at which job."""

    @property
    def job_id(self) -> str: ...
    @property
    def epoch(self) -> int: ...
    @property
    def agent(self) -> str: ...
    @property
    def secret(self) -> str: ...


@dataclass(frozen=True)
class LeaseKey:
    """A lease by its name, where nobody has read the job."""

    job_id: str
    epoch: int
    agent: str
    secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class Lease(Value):
    """An agent's right to run one job until ``expires_at``, as long as it renews it and nobody has a newer epoch."""

    job: FullJob
    epoch: int
    agent: str
    expires_at: Time
    secret: str = field(default="", repr=False)
    """The agent's own: only who shows it may tell a server anything about this attempt."""

    @property
    def job_id(self) -> str:
        return self.job.id


@dataclass(frozen=True, eq=False)
class Renewal:
    """Whoever shows ``secret`` goes on with this attempt, and may tell how far it is."""

    job_id: str
    epoch: int
    secret: str = field(repr=False)
    progress: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Renewed(Value):
    """What a renewal is told: the job's state, where STOPPING says that it was asked to end, within ``grace``.

    ``requested``: of a sweep, the number of the newest request of its users (``SweepOperations.requests``).
    ``granted``: as the job has it. Where its workers can come and go, as a sweep's do, that is to be made so.
    """

    state: JobState
    grace: Seconds | None = None
    requested: int = 0
    granted: int | None = None


@dataclass(frozen=True)
class News:
    """What events have told since an earlier look: who is to look again.

    Args:
        seen: the numbers of the newest events, for the next look.
        jobs: those that something was told of.
        agents: the names of those that have more room.
        queued: whether the queue is another one, or a quota may have room.
        missed: whether there may have been events of other jobs too.
    """

    seen: frozenset[int]
    jobs: frozenset[str]
    agents: frozenset[str]
    queued: bool
    missed: bool


@dataclass(frozen=True)
class AgentInfo(Value):
    """An agent as it last told of itself. ``incarnation`` is another one each time it is started."""

    name: str
    incarnation: str
    nodes: tuple[Node, ...]
    held: tuple[HeldShare, ...]
    """What is already missing from what ``nodes`` have available."""
    detail: Mapping[str, Any]
    started_at: Time
    """When this incarnation was first heard of."""
    seen_at: Time
    alive: bool
    """Whether it was heard of lately, when this was asked."""
    storage: str | None = None
    """The id of its storage root: agents that share one can go on from each other's checkpoints."""
    groups: tuple[Group, ...] = ()
    """Of which its cluster could have more nodes, as it told last."""

    @property
    def owner(self) -> str:
        """Its name on leases."""
        return f"{self.name}/{self.incarnation}"

    @property
    def warnings(self) -> Sequence[Mapping[str, str]]:
        """What is not as it should be with it, each ``found``, and what to do about it, ``advice``."""
        return self.detail.get("warnings", ()) if self.alive else ()


class Role(StrEnum):
    """What a token allows."""

    VIEWER = "viewer"
    """Read everything but code, tokens, and what is private in others' jobs."""
    USER = "user"
    """And submit, and change one's own jobs."""
    ADMIN = "admin"
    """And everybody's jobs, tokens and quotas."""
    AGENT = "agent"
    """Lease jobs as the agent that the token is made out to, and tell how they go."""


@dataclass(frozen=True)
class Token(Value):
    """What the ledger knows of a token. The secret itself is shown once, when it is created, and never stored."""

    id: str
    user: str
    """Whose it is; of the role ``agent``, the agent's name."""
    role: Role
    name: str
    """What it is for: "laptop", "ci"."""
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None


class QuotaKind(StrEnum):
    USER = "user"
    QUEUE = "queue"


@dataclass(frozen=True)
class Quota(Value):
    """The most that the running jobs of a user, or of a queue, may take together; None: no limit.

    ``name`` ``*`` is for each one that has no quota of its own.
    """

    kind: QuotaKind
    name: str
    jobs: int | None = None
    cpus: float | None = None
    gpus: float | None = None


class WhyKind(StrEnum):
    """What a job that does not run is waiting for."""

    RUNS_NOW = "RUNS_NOW"
    """It has been leased, or is the next to be."""
    STARTS_NEXT = "STARTS_NEXT"
    """There is room for it, or room is being made: it starts after those ahead of it."""
    BEHIND = "BEHIND"
    """Those ahead of it take, or wait for, the room it needs."""
    PROVISIONING = "PROVISIONING"
    """Nodes that it would fit on are being started for it."""
    NO_ROOM_NOW = "NO_ROOM_NOW"
    """Nobody is ahead of it, but others still run."""
    NEVER_FITS = "NEVER_FITS"
    """Not even on idle nodes."""
    OVER_QUOTA = "OVER_QUOTA"
    NO_AGENT = "NO_AGENT"
    """No agent that is alive has told of nodes."""
    OTHER_STORAGE = "OTHER_STORAGE"
    """Its checkpoints are in a storage that no agent alive has."""
    HELD_BACK = "HELD_BACK"
    """It would fit, but a job that has waited long suspends backfill."""
    ENDED = "ENDED"
    PAUSED = "PAUSED"


@dataclass(frozen=True)
class Why(Value):
    """Why a job does not run, and the smallest change that would start it."""

    kind: WhyKind
    message: str
    ahead: tuple[str, ...] = ()
    """Ids of the jobs it waits for, nearest first; the first few where they are many."""
    shortfall: str = ""
    """What the nearest node lacks for one more worker: ``1 CPU, 2 GiB of memory``."""
    change: str = ""
    """``resources.workers=2``, ``raise the quota of user anna from 4 to 6 CPUs``; empty where there is none to make."""


@dataclass(frozen=True)
class QueueEntry(Value):
    """A queued job, its place in the order (from 1), and why it has not started."""

    job: Job
    position: int
    why: Why
