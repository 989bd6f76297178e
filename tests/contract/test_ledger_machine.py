"""Anything users and agents may do, in any order: the ledger keeps its promises after each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from epochal.errors import ConflictError, StaleLeaseError
from epochal.ledger.capacity import Demand, Node
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import EDGES, EventKind, JobState, Reason, stronger
from epochal.ledger.values import Attempt, Event, Job, Lease, WhyKind

MAX_JOBS = 4  # few, so that several things happen to one
TTL = st.sampled_from([0, 60])  # a lease of 0 seconds has run out at once
NODES = st.lists(st.sampled_from([1.0, 2.0, 4.0]), max_size=2)
FAILURES = st.sampled_from([Reason.INFRASTRUCTURE, Reason.OUT_OF_MEMORY, Reason.HANG])


class LedgerMachine(RuleBasedStateMachine):
    """Drives a ledger, and remembers what it was told: jobs submitted, the newest epoch of each, how each ended."""

    new_ledger: Callable[[], Ledger]
    jobs = Bundle("jobs")
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = self.new_ledger()
        self.submitted: dict[tuple[str, str], str] = {}
        self.epochs: dict[str, int] = {}
        self.ended: dict[str, JobState] = {}
        self.wanted: dict[str, JobState | None] = {}
        self.touched: set[str] = set()
        self.incarnations: dict[str, int] = {}

    def teardown(self) -> None:
        self.touched = set(self.epochs)
        self.promises_hold()
        self.ledger.close()

    @initialize(target=jobs)
    def first_job(self) -> str:
        return self.submit(50, None, 1, False, "ada")

    @precondition(lambda self: len(self.epochs) < MAX_JOBS)
    @rule(
        target=jobs,
        priority=st.integers(0, 100),
        key=st.none() | st.sampled_from("abc"),
        workers=st.integers(1, 3),
        preemptible=st.booleans(),
        user=st.sampled_from(["ada", "ben"]),
    )
    def submit(self, priority: int, key: str | None, workers: int, preemptible: bool, user: str) -> str:
        if key:  # which belongs to one spec of its user's
            workers, preemptible = 1, False
        spec = {"version": 1, "resources": {"workers": workers}, "preemptible": preemptible}
        job = self.ledger.submit(spec, name="digits", priority=priority, key=key, submitted_by=user)
        if key:
            assert self.submitted.setdefault((user, key), job.id) == job.id
        return self.know(job)

    @precondition(lambda self: len(self.epochs) < MAX_JOBS)
    @rule(target=jobs, job=jobs)
    def retry_job(self, job: str):
        over = self.ledger.job(job).state.is_terminal
        try:
            again = self.ledger.retry_job(job, "ada")
        except ConflictError:
            assert not over
            return multiple()
        assert over
        assert again.origin["retry_of"] == job
        return self.know(again)

    def know(self, job: Job) -> str:
        self.epochs.setdefault(job.id, 0)
        self.touched.add(job.id)
        return job.id

    @rule(agent=st.sampled_from("xy"), cpus=NODES, anew=st.booleans())
    def heartbeat(self, agent: str, cpus: list[float], anew: bool) -> None:
        former = self.owner(agent)
        self.incarnations[agent] = self.incarnations.get(agent, 0) + anew
        nodes = [Node(f"{agent}{n}", agent, {"CPU": count}, {"CPU": count}) for n, count in enumerate(cpus)]
        lost = [job for job in self.ledger.jobs() if job.owner == former] if anew else []
        self.ledger.heartbeat(agent, str(self.incarnations[agent]), nodes, [], {})
        self.touched |= {job.id for job in lost}
        assert not [job.id for job in lost if self.ledger.job(job.id).state.is_active], "the former one's leases end"

    @rule(kind=st.sampled_from(["user", "queue"]), most=st.none() | st.integers(0, 2))
    def set_quota(self, kind: str, most: int | None) -> None:
        self.ledger.set_quota(kind, "*", jobs=most)

    @rule(target=leases, agent=st.sampled_from("xy"), ttl=TTL)
    def lease_by_policy(self, agent: str, ttl: float):
        """What the policy gives fits, is within the quotas, and is the one that `queue` calls next somewhere."""
        before = {job.id: job for job in self.ledger.jobs()}
        known = {one.owner for one in self.ledger.agents()}
        if self.owner(agent) not in known:
            return multiple()
        lease = self.ledger.lease(self.owner(agent), ttl)
        self.touched |= before.keys()
        if lease is None:
            return multiple()
        assert before[lease.job_id].state is JobState.QUEUED
        self.epochs[lease.job_id] += 1
        assert lease.epoch == self.epochs[lease.job_id]
        self.check_share(agent)
        self.check_quotas(lease.job)
        return lease

    def check_share(self, agent: str) -> None:
        """The gangs of an agent, none of which its heartbeats have told of, fit on its nodes together."""
        (info,) = [one for one in self.ledger.agents() if one.name == agent]
        theirs = [job for job in self.ledger.jobs() if job.owner == info.owner]
        starting = [self.ledger.full_job(job.id) for job in theirs if job.state is JobState.STARTING]
        workers = sum(Demand.of(job.spec).workers[0] for job in starting)
        assert workers <= sum(node.total["CPU"] for node in info.nodes)

    def check_quotas(self, leased: Job) -> None:
        active = [job for job in self.ledger.jobs() if job.state.is_active]
        for quota in self.ledger.quotas():
            mine = [job for job in active if quota.kind == "queue" or job.submitted_by == leased.submitted_by]
            assert quota.jobs is None or len(mine) <= quota.jobs

    def owner(self, agent: str) -> str:
        return f"{agent}/{self.incarnations.get(agent, 0)}"

    @rule()
    def queue(self) -> None:
        """Everything queued is in it once, in order, each with a reason; nothing else has one of waiting."""
        entries = self.ledger.queue()
        waiting = self.ledger.jobs([JobState.QUEUED])
        order = sorted(waiting, key=lambda job: (-job.priority, job.number))
        assert [(entry.job.id, entry.position) for entry in entries] == [(job.id, n) for n, job in enumerate(order, 1)]
        assert not {entry.why.kind for entry in entries} & {WhyKind.ENDED, WhyKind.PAUSED}
        assert not any(set(entry.why.ahead) - {job.id for job in waiting} for entry in entries)

    @rule(target=leases, ttl=TTL)
    def lease(self, ttl: float):
        waiting = self.ledger.jobs([JobState.QUEUED])
        lease = self.ledger.lease("agent", ttl)
        if lease is None:
            assert not waiting
            return multiple()
        first = min(waiting, key=lambda job: (-job.priority, job.number))
        assert lease.job_id == first.id
        assert lease.epoch == self.epochs[first.id] + 1
        self.epochs[first.id] = lease.epoch
        self.touched.add(first.id)
        return lease

    @rule(lease=leases, ttl=TTL)
    def renew(self, lease: Lease, ttl: float) -> None:
        self.by_lease(lease, lambda: self.ledger.renew(lease, ttl))

    @rule(lease=leases, world_size=st.integers(1, 3))
    def running(self, lease: Lease, world_size: int) -> None:
        self.by_lease(lease, lambda: self.ledger.running(lease, world_size))

    @rule(lease=leases)
    def succeed(self, lease: Lease) -> None:
        self.by_lease(lease, lambda: self.ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED))

    @rule(lease=leases, reason=FAILURES)
    def fail(self, lease: Lease, reason: Reason) -> None:
        self.by_lease(lease, lambda: self.ledger.finish(lease, JobState.FAILED, reason))

    @rule(lease=leases, reason=FAILURES)
    def retry(self, lease: Lease, reason: Reason) -> None:
        self.by_lease(lease, lambda: self.ledger.retry(lease, reason))

    @rule(lease=leases, reason=FAILURES)
    def lose(self, lease: Lease, reason: Reason) -> None:
        self.by_lease(lease, lambda: self.ledger.retry(lease, reason, lost=True))

    @rule(target=leases, lease=leases, reason=FAILURES)
    def lease_again(self, lease: Lease, reason: Reason):
        """The job is this agent's again at once, or has become what it was asked to be."""
        told: list[Lease | None] = []
        self.by_lease(lease, lambda: told.append(self.ledger.lease_again(lease, 60, reason)))
        (again,) = told or [None]
        if again is None:
            return multiple()
        self.epochs[lease.job_id] = max(again.epoch, self.epochs[lease.job_id])
        assert (again.epoch, again.agent) == (lease.epoch + 1, lease.agent)
        assert self.ledger.lease_again(lease, 60, reason) == again, "its answer may get lost"
        return again

    @rule(lease=leases, step=st.integers(0, 9))
    def saved(self, lease: Lease, step: int) -> None:
        self.by_lease(lease, lambda: self.ledger.saved(lease, step, "checkpoints/x"))

    @rule(lease=leases)
    def pause(self, lease: Lease) -> None:
        self.by_lease(lease, lambda: self.ledger.pause(lease))

    @rule(lease=leases)
    def stopped(self, lease: Lease) -> None:
        self.by_lease(lease, lambda: self.ledger.stopped(lease))

    @rule(job=jobs, request=st.sampled_from(["request_stop", "request_pause", "preempt"]))
    def ask_to_stop(self, job: str, request: str) -> None:
        self.ask(job, request)

    @rule(job=jobs, request=st.sampled_from(["resume", "note", "why"]))
    def ask(self, job: str, request: str) -> None:
        self.touched.add(job)
        before = self.ledger.job(job)
        try:
            getattr(self.ledger, request)(job, *([EventKind.WAITING] if request == "note" else []))
        except StaleLeaseError:
            raise
        except ConflictError:
            assert self.ledger.job(job) == before

    @rule(then=st.sampled_from([JobState.QUEUED, JobState.PAUSED]))
    def expire(self, then: JobState) -> None:
        overdue = {job.id for job in self.ledger.overdue()}
        self.touched |= overdue
        assert {attempt.job_id for attempt in self.ledger.expire(then)} == overdue
        assert not self.ledger.overdue()

    def by_lease(self, lease: Lease, call: Callable[[], object]) -> None:
        """A call with a lease that is not the job's live attempt is refused, or is a repetition; it changes nothing."""
        self.touched.add(lease.job_id)
        before = self.ledger.job(lease.job_id)
        live = before.state.is_active and before.epoch == lease.epoch
        try:
            call()
        except StaleLeaseError:
            assert not live
        except ConflictError:
            assert live
        if not live:
            assert self.ledger.job(lease.job_id) == before

    @invariant()
    def promises_hold(self) -> None:
        found = {job.id: job for job in self.ledger.jobs()}
        assert found.keys() == self.epochs.keys(), "a job was lost or invented"
        for job_id in self.touched:
            self.check(found[job_id])
        self.touched = set()

    def check(self, job: Job) -> None:
        assert job.epoch == self.epochs[job.id]
        assert job.state.is_active == (job.owner is not None) == (job.expires_at is not None)
        assert (job.wanted is not None) == (job.state is JobState.STOPPING)
        assert job.grace is None or job.state is JobState.STOPPING
        assert job.state.is_terminal == (job.ended_at is not None)
        if job.id in self.ended:
            assert job.state is self.ended[job.id], "a terminal state is final"
        if job.state.is_terminal:
            self.ended[job.id] = job.state
        check_obedience(job, self.wanted.get(job.id))
        self.wanted[job.id] = job.wanted
        check_attempts(job, self.ledger.attempts(job.id))
        check_story(job, self.ledger.events(job.id))


def check_obedience(job: Job, wanted: JobState | None) -> None:
    """What was asked before the newest change still holds, or the job has ended, or more was asked."""
    if wanted and not job.state.is_terminal:
        reached = job.wanted or job.state
        assert stronger(reached, wanted) is reached, f"it was to be {wanted}"


def check_attempts(job: Job, attempts: list[Attempt]) -> None:
    assert [attempt.epoch for attempt in attempts] == list(range(1, job.epoch + 1))
    live = [attempt.epoch for attempt in attempts if attempt.outcome is None]
    assert live == ([job.epoch] if job.state.is_active else []), "at most one attempt is live"
    assert all((attempt.ended_at is None) == (attempt.outcome is None) for attempt in attempts)


def check_story(job: Job, events: list[Event]) -> None:
    """Read from its events alone, the job went over legal edges to where it is."""
    first, *later = events
    assert (first.kind, first.previous, first.state) == ("submitted", None, JobState.QUEUED)
    here, epoch = JobState.QUEUED, 0
    for event in later:
        assert event.previous is here
        assert event.state is here or event.state in EDGES[here]
        epoch += event.kind == "leased"
        assert event.epoch == epoch
        here = event.state
    assert (here, epoch) == (job.state, job.epoch)


def test_promises_hold_whatever_happens(new_ledger_url: Callable[[], str], request: pytest.FixtureRequest) -> None:
    class Machine(LedgerMachine):
        new_ledger = staticmethod(lambda: Ledger.open(new_ledger_url()))

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=settings().max_examples // 4,  # each opens a ledger and goes 40 steps
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
