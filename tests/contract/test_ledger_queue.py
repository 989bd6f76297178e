"""Leases by the queue policy, and why the others wait: on every database."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from ledger_steps import SPEC
from sqlalchemy import event

from epochal.errors import ConflictError, NotFoundError
from epochal.ledger import queueing
from epochal.ledger.capacity import Node
from epochal.ledger.contenders import Waiting
from epochal.ledger.ledger import Ledger
from epochal.ledger.policy import in_order
from epochal.ledger.states import JobState, Outcome, Reason
from epochal.ledger.values import AgentInfo, FullJob, Job, Lease, WhyKind

A = "cluster-a/1"


def node(cpus: float = 4, free: float | None = None, name: str = "n1") -> Node:
    return Node(name, f"host-{name}", {"CPU": cpus}, {"CPU": cpus if free is None else free})


def beat(ledger: Ledger, *nodes: Node, name: str = A, held: tuple[Lease, ...] = ()) -> AgentInfo:
    agent, _, incarnation = name.partition("/")
    return ledger.heartbeat(agent, incarnation, nodes or (node(),), [(one.job_id, one.epoch) for one in held], {})


def submit(ledger: Ledger, name: str, workers: int = 1, user: str = "anna", priority: int = 50, **spec) -> FullJob:
    document = {**SPEC, "resources": {"workers": workers}, **spec}
    return ledger.submit(document, name=name, submitted_by=user, priority=priority)


def lease(ledger: Ledger, agent: str = A) -> Lease:
    found = ledger.lease(agent, 60)
    assert found is not None
    return found


def test_job_that_does_not_fit_is_passed(ledger: Ledger) -> None:
    submit(ledger, "wide", workers=8)
    small = submit(ledger, "small")
    beat(ledger)
    assert lease(ledger).job_id == small.id
    assert ledger.lease(A, 60) is None


def test_agent_without_heartbeat_gets_the_first_whatever_it_needs(ledger: Ledger) -> None:
    wide = submit(ledger, "wide", workers=8)
    submit(ledger, "small")
    assert lease(ledger, "embedded").job_id == wide.id


def test_named_job_is_leased_whatever_the_policy_says(ledger: Ledger) -> None:
    submit(ledger, "first", priority=90)
    wide = submit(ledger, "wide", workers=8)
    beat(ledger)
    found = ledger.lease(A, 60, wide.id)
    assert found is not None
    assert found.job_id == wide.id


def test_what_was_leased_since_the_heartbeat_is_counted(ledger: Ledger) -> None:
    for number in range(3):
        submit(ledger, f"job-{number}", workers=2)
    beat(ledger, node(4))
    first, second = lease(ledger), lease(ledger)
    assert ledger.lease(A, 60) is None
    beat(ledger, node(4, free=0), held=(first, second))
    assert ledger.lease(A, 60) is None
    beat(ledger, node(4, free=2), held=(second,))
    ledger.retry(first, Reason.INFRASTRUCTURE)
    assert lease(ledger).job_id == first.job_id


def test_two_agents_share_a_queue_each_by_its_own_nodes(ledger: Ledger) -> None:
    wide, small = submit(ledger, "wide", workers=8), submit(ledger, "small")
    beat(ledger, node(2))
    beat(ledger, node(16), name="cluster-b/1")
    assert lease(ledger).job_id == small.id
    assert lease(ledger, "cluster-b/1").job_id == wide.id


def test_quota_of_a_user(ledger: Ledger) -> None:
    ledger.set_quota("user", "*", jobs=1)
    first, second, other = (submit(ledger, user, user=user) for user in ("anna", "anna", "ben"))
    beat(ledger)
    assert [lease(ledger).job_id, lease(ledger).job_id] == [first.id, other.id]
    assert ledger.lease(A, 60) is None
    why = ledger.why(second.id)
    assert why.kind is WhyKind.OVER_QUOTA
    assert why.change == "raise the quota of user anna from 1 to 2 running jobs"
    ledger.set_quota("user", "anna", jobs=2)
    assert lease(ledger).job_id == second.id


def test_quota_of_a_queue(ledger: Ledger) -> None:
    ledger.set_quota("queue", "nightly", cpus=2)
    submit(ledger, "big", workers=3, queue="nightly")
    fits = submit(ledger, "fits", workers=2, queue="nightly")
    assert fits.queue == "nightly"
    beat(ledger)
    assert lease(ledger).job_id == fits.id
    assert ledger.lease(A, 60) is None


def test_preemption(ledger: Ledger) -> None:
    """The job of lower priority is asked to leave, queues again, and goes on once the urgent one has ended."""
    cheap = submit(ledger, "cheap", workers=4, preemptible=True)
    assert cheap.preemptible
    beat(ledger)
    held = lease(ledger)
    ledger.running(held, world_size=4)
    urgent = submit(ledger, "urgent", workers=2, priority=90)
    late = submit(ledger, "late")
    beat(ledger, node(4, free=0), held=(held,))

    assert ledger.lease(A, 60) is None
    asked = ledger.job(cheap.id)
    assert (asked.state, asked.wanted, asked.reason) == (JobState.STOPPING, JobState.QUEUED, Reason.PREEMPTED)
    assert asked.message == f"to make room for {urgent.id}"
    assert ledger.why(urgent.id).kind is WhyKind.STARTS_NEXT
    assert ledger.why(late.id).ahead == (urgent.id,)
    assert ledger.renew(held, 60).state is JobState.STOPPING

    assert ledger.lease(A, 60) is None, "asking again changes nothing"
    ledger.stopped(held)
    beat(ledger)
    assert ledger.job(cheap.id).state is JobState.QUEUED
    assert ledger.attempts(cheap.id)[0].outcome is Outcome.STOPPED
    assert lease(ledger).job_id == urgent.id
    assert lease(ledger).job_id == late.id
    kinds = [event.kind for event in ledger.events(cheap.id)]
    assert kinds == ["submitted", "leased", "running", "preempt_requested", "queued"]


def test_queue_says_where_each_job_is_and_why(ledger: Ledger) -> None:
    first, second = submit(ledger, "first", workers=3), submit(ledger, "second", workers=2)
    urgent = submit(ledger, "urgent", priority=90)
    beat(ledger)
    entries = ledger.queue()
    assert [(one.job.id, one.position, one.why.kind) for one in entries] == [
        (urgent.id, 1, WhyKind.RUNS_NOW),
        (first.id, 2, WhyKind.STARTS_NEXT),
        (second.id, 3, WhyKind.BEHIND),
    ]
    assert [one.job.id for one in ledger.queue(limit=1)] == [urgent.id]
    assert ledger.why("second") == entries[2].why


def test_why_of_a_job_that_is_not_in_the_queue(ledger: Ledger) -> None:
    job = submit(ledger, "job")
    assert ledger.why(job.id).kind is WhyKind.NO_AGENT
    ledger.request_pause(job.id)
    assert ledger.why(job.id).kind is WhyKind.PAUSED
    ledger.resume(job.id)
    held = ledger.lease("agent", 60)
    assert held is not None
    assert ledger.why(job.id).message == "it is STARTING with the agent agent"
    ledger.finish(held, JobState.FAILED, Reason.USER_ERROR)
    assert ledger.why(job.id).kind is WhyKind.ENDED
    with pytest.raises(NotFoundError):
        ledger.why("nothing")


def test_job_that_waited_too_long_is_failed(ledger: Ledger) -> None:
    hurried = submit(ledger, "hurried", limits={"max_pending": "1ms"})
    patient = submit(ledger, "patient", limits={"max_pending": "1h"})
    anyone = submit(ledger, "anyone")
    time.sleep(0.01)
    assert [job.id for job in ledger.overdue_pending()] == [hurried.id]
    (rejected,) = ledger.reject_overdue()
    assert (rejected.id, rejected.state, rejected.reason) == (hurried.id, JobState.FAILED, Reason.PENDING_TIMEOUT)
    assert "limits.max_pending" in rejected.message
    assert ledger.reject_overdue() == []
    assert {ledger.job(job.id).state for job in (patient, anyone)} == {JobState.QUEUED}


def test_many_jobs_of_which_none_fits_hide_nobody_behind_them(ledger: Ledger) -> None:
    for number in range(300):
        submit(ledger, "wide", workers=8, user=f"u{number % 9}")
    small = submit(ledger, "small")
    beat(ledger)
    assert lease(ledger).job_id == small.id
    assert len(ledger.queue(limit=200)) == 200
    assert ledger.why("wide").kind is WhyKind.NEVER_FITS


def submit_many_kinds(ledger: Ledger) -> None:
    for number in range(60):
        submit(
            ledger, f"job-{number}", workers=1 + number % 3, user=f"u{number % 2}", priority=50 + 10 * (number % 5 == 0)
        )
    submit(ledger, "nightly", queue="nightly")
    submit(ledger, "big", resources={"workers": 2, "memory_per_worker": "1GiB"})
    for user, queue in (("u 1 q", "q"), ("u", "1 q 1 q"), ("u 1", "q 1 q")):
        submit(ledger, "spaces", user=user, queue=queue)
    beat(ledger)


def test_of_one_job_why_says_what_the_queue_says_of_it(ledger: Ledger) -> None:
    submit_many_kinds(ledger)
    beat(ledger, node(8, free=3), name="cluster-b/1")
    ledger.set_quota("user", "u1", jobs=2)
    entries = ledger.queue()
    assert {entry.why.kind for entry in entries} >= {WhyKind.STARTS_NEXT, WhyKind.BEHIND, WhyKind.OVER_QUOTA}
    for entry in entries[::4]:
        assert ledger.why(entry.job.id) == entry.why


@pytest.mark.parametrize("has_quota", [False, True])
def test_a_lease_asks_the_database_few_questions(ledger: Ledger, has_quota: bool) -> None:
    """Each is a round trip to PostgreSQL, and most of them hold up whoever else wants a lease."""
    if has_quota:
        ledger.set_quota("user", "*", jobs=100)
    asked: list[str] = []
    event.listen(ledger._database.engine, "before_cursor_execute", lambda *told: asked.append(told[2]))

    def count() -> int:
        asked.clear()
        ledger.lease(A, 60)
        return sum(not one.startswith("BEGIN") for one in asked)

    beat(ledger)
    assert count() == 3 + has_quota
    job = submit(ledger, "digits")
    takes_a_lock = not ledger._database.is_sqlite
    assert count() == 9 + 2 * has_quota + takes_a_lock
    assert ledger.job(job.id).state is JobState.STARTING


def test_of_the_queued_jobs_of_each_kind_the_database_gives_the_first(ledger: Ledger) -> None:
    submit_many_kinds(ledger)
    with ledger._database.read() as connection:
        found = queueing._read(connection, queueing._FIRSTS[connection.dialect.name], {"storage": None})
        all_of_them = queueing._read(connection, queueing._queued())
    firsts: dict[object, Waiting] = {}
    for one in in_order(all_of_them):
        firsts.setdefault((one.priority, one.demand, one.user, one.queue, one.storage), one)
    assert len(all_of_them) == 65
    assert found == list(firsts.values())


def test_quotas_count_what_runs_with_other_agents(ledger: Ledger) -> None:
    ledger.set_quota("user", "anna", jobs=1)
    submit(ledger, "there")
    beat(ledger, name="cluster-b/1")
    lease(ledger, "cluster-b/1")
    submit(ledger, "here")
    beat(ledger)
    assert ledger.lease(A, 60) is None


def test_an_agent_without_a_free_cpu_costs_no_look_at_the_queue(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(ledger, "waits")
    beat(ledger, node(free=0))
    with monkeypatch.context() as patch:
        patch.delattr(queueing, "_FIRSTS")
        assert ledger.lease(A, 60) is None
    beat(ledger)
    lease(ledger)


class TestDecidedOutsideTheLock:
    """What is decided on before the lock is taken is checked again behind it."""

    @pytest.fixture
    def meanwhile(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
        """Have something happen, once, between the decision and the lock."""
        guess = queueing._guess

        def happens(what: Callable[[], object]) -> None:
            def late(*arguments):
                found = guess(*arguments)
                monkeypatch.setattr(queueing, "_guess", guess)
                what()
                return found

            monkeypatch.setattr(queueing, "_guess", late)

        return happens

    def test_nothing_happened(self, ledger: Ledger, meanwhile) -> None:
        first = submit(ledger, "first")
        beat(ledger)
        meanwhile(lambda: None)
        assert lease(ledger).job_id == first.id

    def test_another_agent_took_it(self, ledger: Ledger, meanwhile) -> None:
        first, second = submit(ledger, "first"), submit(ledger, "second")
        beat(ledger)
        beat(ledger, name="cluster-b/1")
        meanwhile(lambda: ledger.lease("cluster-b/1", 60, first.id))
        assert lease(ledger).job_id == second.id

    def test_this_agent_filled_its_room(self, ledger: Ledger, meanwhile) -> None:
        submit(ledger, "first", workers=3)
        other = submit(ledger, "other", workers=3)
        beat(ledger)
        meanwhile(lambda: ledger.lease(A, 60, other.id))
        assert ledger.lease(A, 60) is None

    def test_the_quota_is_used_up(self, ledger: Ledger, meanwhile) -> None:
        submit(ledger, "first")
        ben = submit(ledger, "second", user="ben")
        beat(ledger)
        meanwhile(lambda: ledger.set_quota("user", "anna", jobs=0))
        assert lease(ledger).job_id == ben.id

    def test_it_was_paused(self, ledger: Ledger, meanwhile) -> None:
        first = submit(ledger, "first")
        beat(ledger)
        meanwhile(lambda: ledger.request_pause(first.id))
        assert ledger.lease(A, 60) is None


class TestRetryAndRepetition:
    def end(self, ledger: Ledger, job: Job, state: JobState, reason: Reason) -> None:
        held = ledger.lease("agent", 60, job.id)
        assert held is not None
        ledger.running(held, world_size=1)
        ledger.finish(held, state, reason)

    def test_retry_is_a_new_job_of_the_same_spec(self, ledger: Ledger) -> None:
        old = ledger.submit(SPEC, name="digits", priority=7, key="k", submitted_by="anna", origin={"folder": "/data"})
        self.end(ledger, old, JobState.FAILED, Reason.USER_ERROR)
        new = ledger.retry_job(old.id, "ben")
        assert new.id != old.id
        assert (new.spec, new.name, new.priority, new.key) == (old.spec, "digits", 7, None)
        assert new.origin == {"folder": "/data", "retry_of": old.id}
        assert (new.submitted_by, new.state) == ("ben", JobState.QUEUED)
        assert ledger.job(old.id).state is JobState.FAILED

    def test_job_that_has_not_ended_cannot_be_retried(self, ledger: Ledger) -> None:
        job = submit(ledger, "job")
        with pytest.raises(ConflictError, match="QUEUED: only a job that has ended"):
            ledger.retry_job(job.id, "anna")
        ledger.request_pause(job.id)
        with pytest.raises(ConflictError) as caught:
            ledger.retry_job(job.id, "anna")
        assert "resume" in caught.value.hint

    def test_same_spec_and_code_that_succeeded_is_found(self, ledger: Ledger) -> None:
        first = ledger.submit(SPEC, name="digits", origin={"code": "c1"})
        assert ledger.same_finished(first.spec_digest, "c1") is None, "it has not finished"
        self.end(ledger, first, JobState.SUCCEEDED, Reason.COMPLETED)
        again = ledger.submit(SPEC, name="digits", origin={"code": "c1"})
        self.end(ledger, again, JobState.FAILED, Reason.USER_ERROR)
        found = ledger.same_finished(first.spec_digest, "c1")
        assert found is not None
        assert found.id == first.id
        assert ledger.same_finished(first.spec_digest, "c2") is None
        assert ledger.same_finished(first.spec_digest, None) is None
        plain = ledger.submit(SPEC, name="digits")
        self.end(ledger, plain, JobState.SUCCEEDED, Reason.COMPLETED)
        without_code = ledger.same_finished(plain.spec_digest, None)
        assert without_code is not None
        assert without_code.id == plain.id
