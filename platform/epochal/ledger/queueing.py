"""The queue: leases by the policy, every job's place in it and why it waits, and jobs that waited too long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Row, and_, select

from epochal.errors import ConflictError
from epochal.ledger.agent_side import take
from epochal.ledger.agents import agent_of, all_agents
from epochal.ledger.capacity import placed
from epochal.ledger.database import Database, one_at_a_time
from epochal.ledger.demands import demand_of
from epochal.ledger.explanation import Cluster, explain
from epochal.ledger.policy import Decision, Running, Waiting, decide
from epochal.ledger.quotas import all_quotas
from epochal.ledger.reading import find
from epochal.ledger.states import ACTIVE, JobState, Reason
from epochal.ledger.tables import attempts, jobs, now
from epochal.ledger.transitions import Step, advance, locked, to_job
from epochal.ledger.user_side import ask_to_leave
from epochal.ledger.values import AgentInfo, Job, Lease, QueueEntry, Why, WhyKind

_LIGHT = tuple(
    jobs.c[name]
    for name in (
        "id", "number", "priority", "submitted_by", "queue", "entered_at",
        "workers_min", "workers_max", "cpus", "gpus", "memory",
    )
)  # fmt: skip
_LEASED = (*_LIGHT, *(jobs.c[name] for name in ("preemptible", "state", "owner", "epoch", "wanted")))


class QueueSide:
    """Who is next, and why not the others."""

    _database: Database

    def lease(self, agent: str, ttl: float, job_id: str | None = None) -> Lease | None:
        """Take the job that the queue policy gives this agent, or ``job_id``; None where there is none to take.

        The job is STARTING with a new attempt, and this agent's for ``ttl`` seconds, or until it is renewed. Jobs that
        have to make room for another are asked to on the way. An agent that never sent a heartbeat gets the first job
        by priority and arrival, whatever it needs.

        Args:
            agent: ``name/incarnation``, as in its heartbeats.

        Raises:
            ConflictError: another incarnation of the agent has taken its place.
        """
        if job_id is None and not self._any_queued():
            return None
        with self._database.write() as connection:
            asking = agent_of(connection, agent)
            if job_id is not None or asking is None:
                return take(connection, agent, ttl, job_id)
            one_at_a_time(connection)
            decision = _decision(connection, asking)
            for identity in sorted(decision.preempt):  # all who lock several jobs do so in this order
                with suppress(ConflictError):  # it ended, or was asked for more, since it was read
                    ask_to_leave(connection, identity, f"to make room for {decision.holder}")
            return take(connection, agent, ttl, decision.start) if decision.start else None

    def queue(self, limit: int | None = None) -> list[QueueEntry]:
        """The queued jobs in the order in which they are looked at, and why each waits; the first ``limit`` of them."""
        with self._database.read() as connection:
            whys = dict(islice(_explained(connection), limit))
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
        with self._database.read() as connection:
            job = find(connection, ref)
            explained: Iterable[tuple[str, Why]] = _explained(connection) if job.state is JobState.QUEUED else ()
            for identity, why in explained:
                if identity == job.id:
                    return why
            return _not_queued(find(connection, job.id))  # PostgreSQL: leased since it was read

    def overdue_pending(self) -> list[Job]:
        """Queued jobs whose ``limits.max_pending`` is used up: what ``reject_overdue`` would fail."""
        with self._database.read() as connection:
            found = connection.execute(select(jobs).where(_waited_too_long()).order_by(jobs.c.number))
            return [to_job(row) for row in found]

    def reject_overdue(self) -> list[Job]:
        """Fail the queued jobs whose ``limits.max_pending`` is used up (``PENDING_TIMEOUT``)."""
        rejected = [self._reject_overdue(job.id) for job in self.overdue_pending()]
        return [job for job in rejected if job]

    def _reject_overdue(self, identity: str) -> Job | None:
        with self._database.write() as connection:
            job = locked(connection, select(jobs).where(jobs.c.id == identity, _waited_too_long()))
            if job is None:
                return None  # leased or stopped meanwhile
            limit = connection.scalar(select(jobs.c.max_pending).where(jobs.c.id == identity))
            message = f"it waited longer than limits.max_pending allows: {limit:g} s"
            return advance(connection, job, Step("failed", JobState.FAILED, Reason.PENDING_TIMEOUT, message))

    def _any_queued(self) -> bool:
        with self._database.read() as connection:
            waiting = select(jobs.c.number).where(jobs.c.state == JobState.QUEUED).limit(1)
            return connection.execute(waiting).first() is not None


def _decision(connection: Connection, asking: AgentInfo) -> Decision:
    leased = _leased(connection)
    cluster = _cluster(asking, leased)
    running = [_running(row, row.owner == asking.owner) for row in leased]
    return decide(_waiting(connection), running, cluster.nodes, all_quotas(connection), _time(connection))


def _explained(connection: Connection) -> Iterator[tuple[str, Why]]:
    leased = _leased(connection)
    clusters = [_cluster(agent, leased) for agent in all_agents(connection) if agent.alive]
    running = [_running(row, here=False) for row in leased]
    return explain(_waiting(connection), running, clusters, all_quotas(connection), _time(connection))


def _cluster(agent: AgentInfo, leased: Sequence[Row[Any]]) -> Cluster:
    """What the agent told of its nodes, less the share of the gangs that were not there yet when it did."""
    theirs = [row for row in leased if row.owner == agent.owner]
    nodes = agent.nodes
    for row in theirs:
        if (row.id, row.epoch) not in agent.held:
            nodes = placed(nodes, _running(row, here=True).share)
    return Cluster(nodes, tuple(_running(row, here=True) for row in theirs))


def _waiting(connection: Connection) -> list[Waiting]:
    query = select(*_LIGHT).where(jobs.c.state == JobState.QUEUED)
    return [
        Waiting(row.id, row.number, row.priority, demand_of(row), row.submitted_by, row.queue, row.entered_at)
        for row in connection.execute(query)
    ]


def _leased(connection: Connection) -> list[Row[Any]]:
    newest = and_(attempts.c.job_id == jobs.c.id, attempts.c.epoch == jobs.c.epoch)
    columns: tuple[Column[Any], ...] = (*_LEASED, attempts.c.leased_at, attempts.c.world_size)
    query = select(*columns).join(attempts, newest)
    active = query.where(jobs.c.state.in_(ACTIVE)).order_by(jobs.c.number)
    return list(connection.execute(active))


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
    )


def _time(connection: Connection) -> float:
    return float(connection.execute(select(now())).scalar_one())


def _waited_too_long() -> ColumnElement[bool]:
    waited = jobs.c.waited_seconds + (now() - jobs.c.entered_at)
    return and_(jobs.c.state == JobState.QUEUED, waited > jobs.c.max_pending)


def _not_queued(job: Job) -> Why:
    if job.state.is_terminal:
        why = f", {job.reason}" if job.reason else ""
        return Why(WhyKind.ENDED, f"it has ended: {job.state}{why}", change=f"`epochal retry {job.id}`, as a new job")
    if job.state is JobState.PAUSED:
        return Why(WhyKind.PAUSED, "it is PAUSED until someone resumes it", change=f"`epochal resume {job.id}`")
    return Why(WhyKind.RUNS_NOW, f"it is {job.state} with the agent {job.owner}")
