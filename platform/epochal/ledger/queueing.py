"""The queue: leases by the policy, every job's place in it and why it waits, and jobs that waited too long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, Text, and_, bindparam, cast, func, or_, select, update

from epochal.errors import ConflictError
from epochal.ledger.agents import AGENT, agent_row, all_agents, to_agent
from epochal.ledger.capacity import Demand, Group, Node, placed
from epochal.ledger.contenders import Ahead, Cluster, Running, Waiting
from epochal.ledger.database import Database, one_at_a_time
from epochal.ledger.demands import demand_of
from epochal.ledger.explanation import explain, explain_one
from epochal.ledger.lease_operations import lease_of, take
from epochal.ledger.policy import Decision, decide, may_start
from epochal.ledger.quotas import all_quotas
from epochal.ledger.reading import find
from epochal.ledger.resizing import ask_to_resize, resized
from epochal.ledger.shortage import LOOKED_AT, short_of
from epochal.ledger.states import ACTIVE, EventKind, JobKind, JobState, Reason
from epochal.ledger.tables import agents, attempts, jobs, now, quotas
from epochal.ledger.tokens import digest_of
from epochal.ledger.transitions import Step, advance, locked, to_job
from epochal.ledger.user_operations import ask_to_leave
from epochal.ledger.values import AgentInfo, Job, Lease, QueueEntry, Quota, Why, WhyKind

_LIGHT = tuple(
    jobs.c[name]
    for name in (
        "id", "number", "priority", "submitted_by", "queue", "entered_at",
        "workers_min", "workers_max", "cpus", "gpus", "memory", "storage", "kind",
    )
)  # fmt: skip


class QueueOperations:
    """Who is next, and why not the others."""

    _database: Database

    def lease(self, agent: str, ttl: float, job_id: str | None = None, secret: str = "") -> Lease | None:
        """Take the job that the queue policy gives this agent, or ``job_id``; None where there is none to take.

        The job is STARTING with a new attempt, and this agent's for ``ttl`` seconds, or until it is renewed; an elastic
        one may have ``granted`` workers. Jobs that have to make room for another, or may have more workers, are told so
        on the way. A process that is no agent of a cluster (its name has no
        incarnation) gets the first job by priority and arrival, whatever it needs.

        Args:
            agent: ``name/incarnation``, as in its heartbeats.
            secret: the agent's own, new and random for each lease: asked again with it, because the answer got lost,
                it gets the same lease, as long as that is held. Nothing is told of the attempt without it, where a
                server is between (``held``). Its SHA-256 is kept.

        Raises:
            ConflictError: another incarnation of the agent has taken its place, or the agent has sent no heartbeat:
                by what it has free, and has told, it is given jobs.
        """
        with self._database.read() as connection:  # most agents ask in vain, which needs no lock
            guess = _guess(connection, agent, job_id, secret)
        if guess is None:
            return None
        with self._database.write() as connection:
            job = _chosen(connection, agent, ttl, job_id, secret, guess)
        if job is None:
            return None
        with self._database.read() as connection:  # its documents are long: nobody waits for the lock meanwhile
            return lease_of(connection, job, agent, secret)

    def queue(self, limit: int | None = None) -> list[QueueEntry]:
        """The queued jobs in the order in which they are looked at, and why each waits; the first ``limit`` of them."""
        with self._database.read() as connection:
            whys = dict(explain(_read(connection, _queued(limit=limit)), *_explaining(connection)))
            query = select(jobs).where(jobs.c.state == JobState.QUEUED)
            if limit is not None:
                query = query.where(jobs.c.id.in_(list(whys)))
            found = {row.id: to_job(row) for row in connection.execute(query)}
        return [
            QueueEntry(found[identity], position, why)
            for position, (identity, why) in enumerate(whys.items(), start=1)
            if identity in found
        ]

    def why(self, ref: str) -> Why:
        """Why a job does not run, and the smallest change that would start it.

        Raises:
            NotFoundError, ConflictError: as ``job``.
        """
        with self._database.snapshot() as connection:
            job = find(connection, ref)
            if job.state is not JobState.QUEUED:
                return _not_queued(job, resized(connection, job) if job.state.is_active else "")
            (asked,) = _read(connection, _NUMBERED, {"numbers": [job.number]})
            classes = [sorted(map(int, joined.split())) for joined in connection.scalars(_CLASSES)]
            ahead = Ahead.of(asked, classes, lambda some: _read(connection, _NUMBERED, {"numbers": some}))
            return explain_one(asked, ahead, *_explaining(connection))

    def provision(self, agent: str, groups: Sequence[Group]) -> dict[str, int]:
        """Tell what worker groups an agent's cluster has, and could have; of how many nodes of each the queue, and what
        runs, could make use.

        Args:
            agent: ``name/incarnation``, as in its heartbeats.

        Raises:
            ConflictError: another incarnation of the agent has taken its place, or it has sent no heartbeat.
        """
        told = tuple(groups)
        with self._database.read() as connection:
            asking, _ = _asking(connection, agent, None, "")
        if asking is None:
            raise ConflictError(f"{agent!r} is not how an agent leases", "give its name and incarnation")
        known = asking.agent
        if told != known.groups:
            with self._database.write() as connection:
                this = update(agents).where(agents.c.name == known.name, agents.c.incarnation == known.incarnation)
                connection.execute(this.values(groups=[group.to_dict() for group in told]))
        with self._database.read() as connection:
            clusters, running = _all(connection)
            waiting = _read(connection, _queued(limit=LOOKED_AT))
            needed = short_of(waiting, running, clusters, all_quotas(connection)).needed
        return dict(needed.get(known.name, {}))

    def overdue_pending(self) -> list[Job]:
        """Queued jobs whose ``limits.max_pending`` is used up: what ``reject_overdue`` would fail."""
        with self._database.read() as connection:
            found = connection.execute(select(jobs).where(_waited_too_long()).order_by(jobs.c.number))
            return [to_job(row) for row in found]

    def reject_overdue(self) -> list[Job]:
        """Fail the queued jobs whose ``limits.max_pending`` is used up (``PENDING_TIMEOUT``)."""
        rejected = []
        for one in self.overdue_pending():
            with self._database.write() as connection:
                job = locked(connection, select(jobs).where(jobs.c.id == one.id, _waited_too_long()))
                if job is None:
                    continue  # leased or stopped meanwhile
                limit = connection.scalar(select(jobs.c.max_pending).where(jobs.c.id == one.id))
                message = f"it waited longer than limits.max_pending allows: {limit:g} s"
                step = Step(EventKind.FAILED, JobState.FAILED, Reason.PENDING_TIMEOUT, message)
                rejected.append(advance(connection, job, step))
        return rejected


class _Asking(NamedTuple):
    """An agent that asks for a lease, by the policy's clock."""

    agent: AgentInfo
    now: float
    quotas: Sequence[Quota]


class _Guess(NamedTuple):
    decision: Decision
    first: Waiting | None = None
    """The job that is to start."""


def _guess(connection: Connection, agent: str, job_id: str | None, secret: str) -> _Guess | None:
    """What ``lease`` would decide, were it asked now; None: nothing to do."""
    asking, answered = _asking(connection, agent, job_id, secret)
    if asking is None:
        return _Guess(Decision())
    decision, firsts = _decision(connection, asking)
    if decision.start or decision.preempt or decision.resize or answered:
        return _Guess(decision, next((job for job in firsts if job.id == decision.start), None))
    return None


def _chosen(
    connection: Connection, agent: str, ttl: float, job_id: str | None, secret: str, guess: _Guess
) -> Job | None:
    """The job that is the agent's from now on, or was since it asked this before."""
    one_at_a_time(connection)
    asking, answered = _asking(connection, agent, job_id, secret)  # again: the guess was made without the lock
    if answered:
        return _still_held(connection, answered)
    if asking is None:
        return take(connection, agent, ttl, job_id, secret)
    workers = may_start(guess.first, *_board(connection, asking), asking.now) if guess.first else 0
    if guess.first and workers and (job := take(connection, agent, ttl, guess.first.id, secret, workers)):
        return job
    decision, _ = _decision(connection, asking)  # another took it, or it makes others leave
    resize = dict(decision.resize)
    for identity in sorted([*decision.preempt, *resize]):  # all who lock several jobs do so in this order
        with suppress(ConflictError):  # it ended, or was asked for more, since it was read
            if identity in resize:
                ask_to_resize(connection, identity, resize[identity], decision.holder)
            else:
                ask_to_leave(connection, identity, f"to make room for {decision.holder}")
    return take(connection, agent, ttl, decision.start, secret, decision.workers) if decision.start else None


def _asking(
    connection: Connection, agent: str, job_id: str | None, secret: str
) -> tuple[_Asking | None, Row[*tuple[Any, ...]] | None]:
    """Who asks, None where the policy is not asked: it takes what it asks for, or the first. And the attempt that this
    question was answered with before, or the newest that followed it at once."""
    digest = digest_of(secret) if secret else None
    if job_id is None and (row := agent_row(connection, agent, _ASKING, {"asking": agent, "digest": digest})):
        limits = all_quotas(connection) if row.limited else ()
        return _Asking(to_agent(row), row.now, limits), row if row.job_id else None
    if job_id is None and "/" in agent:
        raise ConflictError(f"nothing is known of the agent {agent}", "it is given jobs once it has sent a heartbeat")
    return None, connection.execute(_ANSWERED, {"asking": agent, "digest": digest}).first()


def _still_held(connection: Connection, attempt: Row[*tuple[Any, ...]]) -> Job | None:
    job = find(connection, attempt.job_id)
    return job if job.epoch == attempt.epoch and job.state.is_active else None


def _decision(connection: Connection, asking: _Asking) -> tuple[Decision, list[Waiting]]:
    """And the queued jobs that it was made of."""
    running, nodes, quotas = _board(connection, asking)
    is_full = not any(node.available.get("CPU", 0.0) > 0 for node in nodes)
    if is_full and not any(job.here and (job.preemptible or job.spare or job.gives) for job in running):
        return Decision(), []  # most who ask: whatever waits, it is not read
    firsts = _read(connection, _FIRSTS[connection.dialect.name], {"storage": asking.agent.storage})
    return decide(firsts, running, nodes, quotas, asking.now), firsts


def _board(connection: Connection, asking: _Asking) -> tuple[list[Running], tuple[Node, ...], Sequence[Quota]]:
    """What the policy wants to know beside the queue and the time."""
    agent = asking.agent
    # Where nobody has a quota, jobs of others count only while they leave to make room.
    query, asked = (_LEASED, {}) if asking.quotas else (_LEASED_BY, {"asking": agent.owner})
    leased = connection.execute(query, asked).all()
    cluster = _cluster(agent, [row for row in leased if row.owner == agent.owner])
    here = {job.id: job for job in cluster.running}
    return [here.get(row.id) or _running(row, here=False) for row in leased], cluster.nodes, asking.quotas


def _explaining(connection: Connection) -> tuple[list[Running], list[Cluster], list[Quota], float]:
    """What explanations want to know beside the queue."""
    clusters, running = _all(connection)
    return running, clusters, all_quotas(connection), float(connection.execute(select(now())).scalar_one())


def _all(connection: Connection) -> tuple[list[Cluster], list[Running]]:
    """Every agent's cluster, and what runs on all of them."""
    leased = connection.execute(_LEASED).all()
    theirs: dict[str, list[Row[Any]]] = {}
    for row in leased:
        theirs.setdefault(row.owner, []).append(row)
    clusters = [_cluster(agent, theirs.get(agent.owner, ())) for agent in all_agents(connection)]
    here = {job.id: job for cluster in clusters for job in cluster.running}
    return clusters, [here.get(row.id) or _running(row, here=False) for row in leased]


def _cluster(agent: AgentInfo, leased: Iterable[Row[Any]]) -> Cluster:
    """What the agent told of its nodes, less the share of the workers that were not there yet when it did. ``leased``:
    the jobs that it has."""
    told = {(job_id, epoch): workers for job_id, epoch, *workers in agent.held}
    nodes = agent.nodes if agent.alive else ()
    running = []
    for row in leased:
        job, there = _running(row, here=True), told.get((row.id, row.epoch))
        if there is None:
            nodes = placed(nodes, job.share)
        elif there == [0]:  # it has left its place, and packages its model: nobody joins it any more
            job = replace(job, demand=replace(job.demand, step=0))
        elif there and there[0] < job.workers:  # an agent of an older version does not say how many
            nodes = placed(nodes, job.demand.with_workers(job.workers - there[0]))
        running.append(job)
    return Cluster(nodes, tuple(running), agent.name, agent.storage, agent.groups if agent.alive else ())


def _queued(*which: ColumnElement[bool], limit: int | None = None) -> Select[Any]:
    """In their order."""
    return _in_turn(jobs.c.state == JobState.QUEUED, *which).limit(limit)


def _in_turn(*which: ColumnElement[bool]) -> Select[Any]:
    return select(*_LIGHT).where(*which).order_by(jobs.c.priority.desc(), jobs.c.number)


def _read(connection: Connection, query: Select[Any], asked: Mapping[str, Any] | None = None) -> list[Waiting]:
    demands: dict[Demand, Demand] = {}  # of those that are equal one object, whose hash is known
    return [
        Waiting(
            row.id,
            row.number,
            row.priority,
            demands.setdefault(demand := demand_of(row), demand),
            row.submitted_by,
            row.queue,
            row.entered_at,
            row.storage,
        )
        for row in connection.execute(query, asked or {})
    ]


def _leased(*which: ColumnElement[bool]) -> Select[Any]:
    newest = and_(attempts.c.job_id == jobs.c.id, attempts.c.epoch == jobs.c.epoch)
    held = (jobs.c[name] for name in ("preemptible", "state", "owner", "epoch", "wanted", "granted", "granted_at"))
    query = select(*_LIGHT, *held, attempts.c.leased_at, attempts.c.world_size).join(attempts, newest)
    return query.where(jobs.c.state.in_(ACTIVE), *which).order_by(jobs.c.number)


def _first_of_each_class() -> Select[int]:
    """The numbers of those queued jobs. From one class to the next by the index: a group by would read all jobs."""
    queued, one = jobs.c.state == JobState.QUEUED, jobs.c.queue_class
    classes = select(func.min(one).label("this")).where(queued).cte("classes", recursive=True)
    following = select(func.min(one)).where(queued, one > classes.c.this).scalar_subquery()
    classes = classes.union_all(select(following).where(classes.c.this.is_not(None)))
    first = select(func.min(jobs.c.number)).where(queued, one == classes.c.this).scalar_subquery()
    return select(first).where(classes.c.this.is_not(None))


_BY_SECRET = and_(attempts.c.agent == bindparam("asking"), attempts.c.secret == bindparam("digest"))
_ANSWERED: Select[Any] = select(attempts.c.job_id, attempts.c.epoch).where(_BY_SECRET).order_by(attempts.c.epoch.desc())
# Most ledgers have no quotas, and need not be asked for them.
_LIMITED = select(quotas.c.kind).exists().label("limited")
_ASKING = (
    AGENT.add_columns(now().label("now"), attempts.c.job_id, attempts.c.epoch, _LIMITED)
    .select_from(agents.outerjoin(attempts, _BY_SECRET))
    .order_by(attempts.c.epoch.desc())
)
_AT_HAND = or_(jobs.c.storage.is_(None), jobs.c.storage == bindparam("storage"))
_NUMBERED = _in_turn(jobs.c.number.in_(bindparam("numbers", expanding=True)))
_FIRST_NUMBERS = _first_of_each_class()
_FIRSTS = {
    # Of the queued jobs of each class that an agent with this storage may run the first, in their order.
    "sqlite": _in_turn(jobs.c.number.in_(_FIRST_NUMBERS), _AT_HAND),
    # Of IN, PostgreSQL makes a scan of all jobs.
    "postgresql": _in_turn(jobs.c.number == func.any(func.array(_FIRST_NUMBERS.scalar_subquery())), _AT_HAND),
}
_CLASSES = (
    select(func.aggregate_strings(cast(jobs.c.number, Text), " "))
    .where(jobs.c.state == JobState.QUEUED)
    .group_by(jobs.c.queue_class)
)
"""Of each class the numbers of its jobs, from the index alone: an object of ten thousand rows each takes 0.1 s."""
_LEASED = _leased()
_LEASED_BY = _leased(or_(jobs.c.owner == bindparam("asking"), jobs.c.state == JobState.STOPPING))
"""What is asked for all the time is made once."""


def _running(row: Row[Any], here: bool) -> Running:
    return Running(
        row.id,
        row.priority,
        demand_of(row),
        row.submitted_by,
        row.queue,
        row.preemptible,
        row.leased_at,
        here,
        row.entered_at if row.state == JobState.STOPPING else None,
        row.world_size,
        row.number,
        row.granted,
        row.granted_at or 0.0,
    )


def _waited_too_long() -> ColumnElement[bool]:
    waited = jobs.c.waited_seconds + (now() - jobs.c.entered_at)
    return and_(jobs.c.state == JobState.QUEUED, waited > jobs.c.max_pending)


def _not_queued(job: Job, resized: str) -> Why:
    if job.state.is_terminal:
        why = f", {job.reason}" if job.reason else ""
        more = f"`epochal sweep extend {job.id} --trials N`, or " if job.kind is JobKind.SWEEP else ""
        change = f"{more}`epochal retry {job.id}`, as a new job"
        return Why(WhyKind.ENDED, f"it has ended: {job.state}{why}", change=change)
    if job.state is JobState.PAUSED:
        because = f" ({job.message})" if job.reason is Reason.INTERRUPTED else ""
        message = f"it is PAUSED until someone resumes it{because}"
        return Why(WhyKind.PAUSED, message, change=f"`epochal resume {job.id}`")
    how = f": resized {resized}" if resized else ""
    return Why(WhyKind.RUNS_NOW, f"it is {job.state} with the agent {job.owner}{how}")
