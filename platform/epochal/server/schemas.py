"""The bodies of requests, and how answers look, for OpenAPI.

Answers are the ledger's values as ``to_dict`` writes them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from epochal import names
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.ledger.values import (
    GRACE_SECONDS,
    LONGEST_GRACE,
    AgentInfo,
    Attempt,
    Event,
    FullJob,
    Job,
    QueueEntry,
    Quota,
    Renewed,
    Role,
    Token,
    Why,
)
from epochal.server.log_store import CURSOR, LONGEST_CURSOR

LARGEST = 2**53 - 1
LAST_EPOCH = 1_000_000_000
LONGEST_SECRET = 200
MOST_RENEWALS = 1000
_Epoch = Annotated[int, Field(ge=0, le=LARGEST)]
_Key = Annotated[str, Field(min_length=1, max_length=200)]


def answer_of(name: str, **fields: Any) -> type[BaseModel]:
    described: dict[str, Any] = {field: (kind, ...) for field, kind in fields.items()}
    return create_model(name, **described)


class ErrorDocument(BaseModel):
    """What went wrong, and what to do next."""

    kind: str
    message: str
    hint: str
    arguments: list[Any]


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDocument


class LogErrorBody(ErrorBody):
    """``next``: the offset to go on from."""

    next: int | None = None


class LogChunk(BaseModel):
    """What one rank printed. ``offset`` is where it starts in that rank's log, in bytes."""

    attempt: int
    rank: int
    offset: int
    text: str


SUBMITTED = answer_of("Submitted", job=FullJob, created=bool, same_as=str | None)
JOBS = answer_of("Jobs", jobs=list[Job], next=int | None, total=int | None)
ATTEMPTS = answer_of("Attempts", attempts=list[Attempt])
EVENTS = answer_of("Events", events=list[Event], done=bool)
LOGS = answer_of("Logs", chunks=list[LogChunk], cursor=str, done=bool)
QUEUE = answer_of("Queue", queue=list[QueueEntry], total=int)
NEEDED = answer_of("Needed", needed=dict[str, int])
AGENTS = answer_of("Agents", agents=list[AgentInfo])
TOKENS = answer_of("Tokens", tokens=list[Token])
NEW_TOKEN = answer_of("MadeToken", token=Token, secret=str)
QUOTAS = answer_of("Quotas", quotas=list[Quota])
WHOAMI = answer_of("Whoami", user=str, role=Role, token_id=str, version=str)
RENEWED = answer_of("RenewedLeases", leases=list[Renewed | ErrorBody])
NEXT = answer_of("Next", next=int)
STATUS = answer_of("Status", status=Literal["ok"])
READY = answer_of("Ready", status=Literal["ok"], storage=str)


class Brief(BaseModel):
    """A job without its spec."""

    id: str
    name: str
    state: JobState
    reason: Reason | None
    message: str
    submitted_by: str
    priority: int
    queue: str
    submitted_at: datetime
    entered_at: datetime
    ended_at: datetime | None
    pending_seconds: float
    running_seconds: float
    run_id: str | None
    run_url: str | None
    runs_url: str | None
    epoch: int


class Running(Brief):
    progress: dict[str, Any] | None


class Queued(BaseModel):
    job: Brief
    position: int
    why: Why


class Overview(BaseModel):
    """All that the page shows. ``queued_more`` jobs are queued beside those in ``queue``."""

    now: datetime
    version: str
    user: str
    role: Role
    counts: dict[JobState, int]
    queue: list[Queued]
    queued_more: int
    running: list[Running]
    recent: list[Brief]
    agents: list[AgentInfo]
    mlflow_url: str | None


class Pages(BaseModel):
    """Addresses of MLflow's pages: a job's run, the runs of its experiment, and several jobs' runs compared.

    Null where there is no run yet, or no tracking server that has pages; ``comparison`` also unless all of the jobs
    have runs on the same one.
    """

    run: str | None
    runs: str | None
    comparison: str | None


class Body(BaseModel):
    """What a request carries: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


Text = Annotated[str, Field(max_length=20_000)]
Document = dict[str, Any]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Wait = Annotated[float, Field(ge=0, le=30, allow_inf_nan=False)]
"""How long to wait for something new, in seconds."""
Count = Annotated[int, Field(ge=0, le=1_000_000)]


class Question(BaseModel):
    """What stands in a request's address."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class JobFilter(Question):
    state: list[JobState] = []
    name: Annotated[str, Field(max_length=200)] | None = None
    user: Annotated[str, Field(max_length=200)] | None = None
    queue: Annotated[str, Field(max_length=200)] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    before: Annotated[int, Field(ge=0, le=LARGEST)] | None = None


class PagesOf(Question):
    job: Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(min_length=1, max_length=100)]


class EventFilter(Question):
    after: Annotated[int, Field(ge=0, le=LARGEST)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000
    wait: Wait = 0.0


class LogFilter(Question):
    """Which logs, from where, and how much: null is all of them. ``tail`` counts where there is no cursor yet."""

    cursor: Annotated[str, Field(pattern=CURSOR, max_length=LONGEST_CURSOR)] = ""
    rank: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    attempt: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    tail: Annotated[int, Field(ge=0, le=100_000)] | None = None
    wait: Wait = 0.0
    limit_bytes: Annotated[int, Field(ge=1024, le=2**20)] = 256 * 1024


class LogOffset(Question):
    """``offset``: where the sent bytes start in the log."""

    offset: Annotated[int, Field(ge=0, le=10**14)] = 0


class Submission(Body):
    """A job spec, and what it is submitted with. The name, priority and queue are the spec's."""

    spec: Document
    key: _Key | None = None
    """The client's own id for this submission: doing it again gives the same job."""
    code: Annotated[str, Field(pattern=names.DIGEST)] | None = None
    """Digest of the code package, which was sent before."""
    command: Annotated[list[Text], Field(max_length=1000)] = []
    file: Text = ""
    folder: Text = ""
    tags: dict[str, Text] = {}
    environment: Document = {}
    git_diff: str = ""


class Asked(Body):
    message: Text = ""


class AskedToEnd(Asked):
    """``grace``: how long its workers have to save their state, in seconds; then they are killed."""

    grace: Annotated[float, Field(ge=0, le=LONGEST_GRACE)] = GRACE_SECONDS


class NewToken(Body):
    user: Annotated[str, Field(pattern=names.USER)]
    role: Annotated[Role, Field(strict=False)]
    name: Annotated[str, Field(max_length=200)] = ""
    ttl_seconds: Annotated[float, Field(gt=0, le=1e10)] | None = None


class Limits(Body):
    """The most that running jobs may take together; null: no limit."""

    jobs: Count | None = None
    cpus: Annotated[float, Field(ge=0, le=1e9)] | None = None
    gpus: Annotated[float, Field(ge=0, le=1e9)] | None = None


class NodeBody(Body):
    id: Annotated[str, Field(max_length=200)]
    host: Annotated[str, Field(max_length=200)]
    total: dict[str, float]
    available: dict[str, float]


_NotStrict = Field(strict=False)  # JSON has no tuples
_Held = Annotated[tuple[str, _Epoch, Count], _NotStrict] | Annotated[tuple[str, _Epoch], _NotStrict]


class Heartbeat(Body):
    """``held``: job id, epoch and number of workers of the gangs whose share is missing from what the nodes have
    available. Without the number, all that the job may have."""

    incarnation: Annotated[str, Field(pattern=names.AGENT)]
    nodes: Annotated[list[NodeBody], Field(max_length=10_000)]
    held: Annotated[list[_Held], Field(max_length=100_000)] = []
    detail: Document = {}
    storage: Annotated[str, Field(min_length=1, max_length=100)] | None = None


class GroupBody(Body):
    """Nodes of one shape that the agent's cluster could have more of."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    shape: Annotated[dict[str, float], Field(max_length=100)]
    most: Annotated[int, Field(ge=0, le=10_000)]
    asked: Annotated[int, Field(ge=0, le=10_000)]
    nodes: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=10_000)] = []
    waits: Annotated[list[Annotated[str, Field(max_length=2000)]], Field(max_length=1000)] = []


class Groups(Body):
    """What worker groups the agent's cluster has, and could have."""

    incarnation: Annotated[str, Field(pattern=names.AGENT)]
    groups: Annotated[list[GroupBody], Field(max_length=100)]


class LeaseRequest(Body):
    """Waits up to ``wait`` seconds for a job. ``ttl``: how long the lease is good for, in seconds.

    ``secret``: random, the agent's own, another one for each lease. Asked again with it, the answer is the same lease;
    all that is told of the lease has to show it (header ``Lease-Secret``).
    """

    incarnation: Annotated[str, Field(pattern=names.AGENT)]
    secret: Annotated[str, Field(min_length=32, max_length=LONGEST_SECRET)]
    ttl: Seconds
    wait: Wait = 0.0


class LeaseRenewal(Body):
    """One of many: whose lease it is, and how far its training is."""

    job_id: Annotated[str, Field(pattern=names.JOB_ID)]
    epoch: Annotated[int, Field(ge=1, le=LAST_EPOCH)]
    secret: Annotated[str, Field(max_length=LONGEST_SECRET)]
    progress: Document | None = None


class Renewals(Body):
    ttl: Seconds
    leases: Annotated[list[LeaseRenewal], Field(max_length=MOST_RENEWALS)]


class Began(Body):
    world_size: Annotated[int, Field(ge=1, le=1_000_000)]
    detail: Document = {}


class RunOf(Body):
    run_id: Annotated[str, Field(min_length=1, max_length=200)]
    tracking_uri: Annotated[str, Field(max_length=2000)]
    experiment_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class DataOf(Body):
    data: Document


class SavedAt(Body):
    step: Annotated[int, Field(ge=0, le=LARGEST)]
    path: Annotated[str, Field(max_length=2000)]


class Noted(Body):
    """With a ``key`` it is recorded once, however often it is told."""

    kind: Annotated[EventKind, Field(strict=False)]
    message: Text = ""
    detail: Document = {}
    key: _Key | None = None


class Finished(Body):
    state: Annotated[JobState, Field(strict=False)]
    reason: Annotated[Reason, Field(strict=False)]
    message: str = ""


class HandedBack(Body):
    """``lost``: Ray, or the agent itself, went down with it."""

    reason: Annotated[Reason, Field(strict=False)]
    message: str = ""
    lost: bool = False


class Failed(Body):
    """``ttl``: how long the lease of the next attempt is good for, in seconds."""

    ttl: Seconds
    reason: Annotated[Reason, Field(strict=False)]
    message: str = ""


class Paused(Body):
    reason: Annotated[Reason, Field(strict=False)] = Reason.STOPPED_BY_USER
    message: str = ""


class Stopped(Body):
    message: str = ""
