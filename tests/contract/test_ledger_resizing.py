"""A sweep gives workers to a job that comes first, and takes them back: on every database."""

from __future__ import annotations

from ledger_steps import SPEC

from epochal.ledger.capacity import Node
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.ledger.values import FullJob, Job, Lease, WhyKind

A = "cluster/1"


def beat(ledger: Ledger, free: float, *held: tuple[Lease, int], name: str = A) -> None:
    """Of a machine with two CPUs; ``held`` are the agent's leases with the workers that have their place."""
    agent, _, incarnation = name.partition("/")
    node = Node("n1", "host", {"CPU": 2.0}, {"CPU": free})
    ledger.heartbeat(agent, incarnation, [node], [(one.job_id, one.epoch, count) for one, count in held], {})


def sweep(ledger: Ledger, priority: int = 50, **spec) -> FullJob:
    document = {**SPEC, "resources": {"workers": 1}, "sweep": {"trials": 8}, **spec}
    return ledger.submit(document, name="sweep", submitted_by="anna", priority=priority)


def urgent(ledger: Ledger, workers: int = 1) -> FullJob:
    return ledger.submit({**SPEC, "resources": {"workers": workers}}, name="urgent", priority=90)


def leased(ledger: Ledger, agent: str = A) -> Lease:
    found = ledger.lease(agent, 60)
    assert found is not None
    return found


def running(ledger: Ledger) -> Lease:
    """A sweep on all of the machine."""
    beat(ledger, 2)
    lease = leased(ledger)
    assert lease.job.granted == 2
    ledger.running(lease, 2)
    beat(ledger, 0, (lease, 2))
    return lease


def told(ledger: Ledger, job: Job, *kinds: EventKind) -> list[str]:
    return [event.message for event in ledger.events(job.id) if event.kind in kinds]


def test_a_sweep_gives_a_worker_and_takes_it_back(ledger: Ledger) -> None:
    job = sweep(ledger)
    lease = running(ledger)
    assert ledger.lease(A, 60) is None
    assert ledger.renew(lease, 60).granted == 2

    first = urgent(ledger)
    waits = f"room is being made for it: {job.id} gives 1 worker back as its trials reach their next rung"
    assert ledger.why(first.id).message == waits
    assert ledger.lease(A, 60) is None
    assert ledger.renew(lease, 60).granted == 1
    assert (ledger.why(first.id).kind, ledger.why(first.id).message) == (WhyKind.STARTS_NEXT, waits)
    assert ledger.lease(A, 60) is None, "it is asked once"
    assert len(told(ledger, job, EventKind.RESIZE_REQUESTED)) == 1

    beat(ledger, 1, (lease, 1))  # the room is there before the ledger hears who left it
    assert ledger.lease(A, 60) is None
    ledger.running(lease, 1)
    assert told(ledger, job, EventKind.RESIZED) == [f"2 -> 1 for {first.id}"]
    assert ledger.why(job.id).message == f"it is RUNNING with the agent {A}: resized 2 -> 1 for {first.id}"
    other = leased(ledger)
    assert other.job_id == first.id
    ledger.running(other, 1)
    beat(ledger, 0, (lease, 1), (other, 1))
    assert ledger.lease(A, 60) is None
    assert ledger.renew(lease, 60).granted == 1

    ledger.finish(other, JobState.SUCCEEDED, Reason.COMPLETED)
    beat(ledger, 1, (lease, 1))
    assert ledger.lease(A, 60) is None
    assert ledger.renew(lease, 60).granted == 2
    late = urgent(ledger)
    assert ledger.why(late.id).kind is WhyKind.STARTS_NEXT, "what is granted is taken"
    ledger.running(lease, 2)
    assert told(ledger, job, EventKind.RESIZED)[1:] == ["1 -> 2"]
    assert job.id in ledger.why(late.id).message


def test_one_that_nobody_wants_any_more_is_kept(ledger: Ledger) -> None:
    job = sweep(ledger)
    lease = running(ledger)
    first = urgent(ledger)
    assert ledger.lease(A, 60) is None
    assert ledger.renew(lease, 60).granted == 1
    ledger.request_stop(first.id)
    assert ledger.lease(A, 60) is None
    assert ledger.renew(lease, 60).granted == 2
    assert told(ledger, job, EventKind.RESIZED) == []


def test_its_last_worker_a_sweep_gives_only_if_it_is_preemptible(ledger: Ledger) -> None:
    firm = sweep(ledger)
    lease = running(ledger)
    wide = urgent(ledger, workers=2)
    assert ledger.lease(A, 60) is None
    assert ledger.why(wide.id).kind is WhyKind.NO_ROOM_NOW
    assert (ledger.job(firm.id).state, ledger.renew(lease, 60).granted) == (JobState.RUNNING, 2)
    ledger.retry(lease, Reason.INTERRUPTED, "drained")
    ledger.request_stop(firm.id)

    ledger.request_stop(wide.id)
    soft = sweep(ledger, preemptible=True)
    lease = running(ledger)
    wide = urgent(ledger, workers=2)
    assert ledger.lease(A, 60) is None
    assert ledger.job(soft.id).state is JobState.STOPPING
    ledger.stopped(lease)
    assert ledger.job(soft.id).granted is None
    beat(ledger, 2)
    assert leased(ledger).job_id == wide.id


def test_a_quota_counts_what_a_sweep_has(ledger: Ledger) -> None:
    ledger.set_quota("user", "anna", cpus=1)
    job = sweep(ledger)
    beat(ledger, 2)
    lease = leased(ledger)
    assert (lease.job_id, lease.job.granted) == (job.id, 1)
    ledger.running(lease, 1)
    beat(ledger, 1, (lease, 1))
    assert ledger.lease(A, 60) is None
    assert ledger.renew(lease, 60).granted == 1
    ledger.set_quota("user", "anna", cpus=2)
    assert ledger.lease(A, 60) is None
    assert ledger.renew(lease, 60).granted == 2


def test_after_the_agent_died_while_it_made_room_nothing_is_left_of_it(ledger: Ledger) -> None:
    """SIGKILL before it has told that the worker has gone; the next agent's machine is empty."""
    job = sweep(ledger)
    running(ledger)
    first = urgent(ledger)
    assert ledger.lease(A, 60) is None
    assert ledger.job(job.id).granted == 1
    beat(ledger, 2, name="cluster/2")
    assert (ledger.job(job.id).state, ledger.job(job.id).granted) == (JobState.QUEUED, None)
    other, again = leased(ledger, "cluster/2"), leased(ledger, "cluster/2")
    assert [(one.job_id, one.job.granted) for one in (other, again)] == [(first.id, 1), (job.id, 1)]
    assert ledger.lease("cluster/2", 60) is None
    ledger.running(again, 1)
    assert told(ledger, job, EventKind.RESIZED) == []
    ledger.running(other, 1)
    ledger.finish(other, JobState.SUCCEEDED, Reason.COMPLETED)
    beat(ledger, 1, (again, 1), name="cluster/2")
    assert ledger.lease("cluster/2", 60) is None
    assert ledger.renew(again, 60).granted == 2


def test_workers_that_have_left_are_not_expected_back(ledger: Ledger) -> None:
    """A job whose model is packaged needs no room any more."""
    sweep(ledger)
    lease = running(ledger)
    beat(ledger, 2, (lease, 0))
    wide = urgent(ledger, workers=2)
    assert leased(ledger).job_id == wide.id


def test_the_next_attempt_may_have_as_many(ledger: Ledger) -> None:
    sweep(ledger)
    lease = running(ledger)
    urgent(ledger)
    assert ledger.lease(A, 60) is None
    again = ledger.lease_again(lease, 60, Reason.INFRASTRUCTURE)
    assert again is not None
    assert again.job.granted == 1


def test_a_lease_past_the_policy_has_what_it_finds(ledger: Ledger) -> None:
    job = sweep(ledger)
    lease = ledger.lease("in the foreground", 60, job.id)
    assert lease is not None
    assert lease.job.granted is None
    assert ledger.renew(lease, 60).granted is None
