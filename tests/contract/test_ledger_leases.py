"""Leases that are kept, lost, asked for twice, and bound to a storage: on every database."""

from __future__ import annotations

import pytest
from ledger_steps import SPEC, leased, running, state, submit
from test_ledger_at_once import at_once

from epochal.errors import ConflictError, NotFoundError, StaleLeaseError
from epochal.ledger.capacity import Node
from epochal.ledger.lease_operations import MOST_LOSSES, STARTS_FOR_A_LOSS
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import EventKind, JobState, Outcome, Reason
from epochal.ledger.values import Job, Lease, LeaseKey, Renewal, Renewed, WhyKind

NODES = [Node("n", "n", {"CPU": 4.0}, {"CPU": 4.0})]
INFRA = Reason.INFRASTRUCTURE


def beat(ledger: Ledger, name: str, storage: str | None = None, incarnation: str = "1") -> str:
    return ledger.heartbeat(name, incarnation, NODES, [], {}, storage).owner


def held(ledger: Ledger, agent: str, job: Job) -> Lease:
    lease = ledger.lease(agent, 60, job.id)
    assert lease is not None
    return lease


class TestAgain:
    def test_the_next_attempt_is_the_same_agent_s_at_once(self, ledger: Ledger) -> None:
        lease = running(ledger)
        again = ledger.lease_again(lease, 60, INFRA, "rank 1 was lost")
        assert again is not None
        assert (again.epoch, again.agent, again.job.state) == (2, lease.agent, JobState.STARTING)
        first, second = ledger.attempts(lease.job_id)
        assert (first.outcome, first.reason, first.message) == (Outcome.FAILED, INFRA, "rank 1 was lost")
        assert second.outcome is None
        kinds = [event.kind for event in ledger.events(lease.job_id)]
        assert kinds == ["submitted", "leased", "running", "requeued", "leased"]
        with pytest.raises(StaleLeaseError):
            ledger.renew(lease, 60)

    def test_nobody_can_take_it_in_between(self, ledger: Ledger) -> None:
        agents = [beat(ledger, name) for name in "ab"]
        for _ in range(12):
            lease = held(ledger, agents[0], submit(ledger))
            again, other = at_once(
                2,
                lambda number, lease=lease: (
                    ledger.lease(agents[1], 60) if number else ledger.lease_again(lease, 60, INFRA)
                ),
            )
            assert isinstance(again, Lease), again
            assert other is None
            ledger.finish(again, JobState.FAILED, INFRA)

    def test_asked_again_it_is_the_same_lease(self, ledger: Ledger) -> None:
        lease = running(ledger)
        again = ledger.lease_again(lease, 60, INFRA)
        events = ledger.events(lease.job_id)
        assert ledger.lease_again(lease, 60, INFRA) == again
        assert ledger.events(lease.job_id) == events
        assert again is not None
        ledger.running(again, 1)
        repeated = ledger.lease_again(lease, 60, INFRA)
        assert repeated is not None
        assert (repeated.epoch, repeated.job.state) == (2, JobState.RUNNING)

    def test_once_that_is_lost_too_it_is_stale(self, ledger: Ledger) -> None:
        lease = running(ledger)
        ledger.lease_again(lease, 0, INFRA)
        ledger.expire()
        with pytest.raises(StaleLeaseError):
            ledger.lease_again(lease, 60, INFRA)

    @pytest.mark.parametrize(
        ("request_", "becomes"),
        [
            ("request_stop", JobState.STOPPED),
            ("request_pause", JobState.PAUSED),
            ("preempt", JobState.QUEUED),
        ],
    )
    def test_job_that_was_asked_to_leave_does_that(self, ledger: Ledger, request_: str, becomes: JobState) -> None:
        lease = running(ledger)
        getattr(ledger, request_)(lease.job_id)
        for _ in range(2):
            assert ledger.lease_again(lease, 60, INFRA) is None
            assert state(ledger, lease) is becomes
        assert len(ledger.attempts(lease.job_id)) == 1

    def test_quota_that_was_lowered_meanwhile_takes_nobody_s_place(self, ledger: Ledger) -> None:
        agent = beat(ledger, "a")
        lease = held(ledger, agent, submit(ledger, submitted_by="ada"))
        ledger.set_quota("user", "ada", jobs=0)
        assert ledger.lease_again(lease, 60, INFRA) is not None


class TestLosses:
    def lose(self, ledger: Ledger, job: Job, checkpoint: int | None = None, started: bool = True) -> None:
        lease = ledger.lease("agent", 0, job.id)
        assert lease is not None
        if started:
            ledger.running(lease, 1)
        if checkpoint is not None:
            ledger.saved(lease, checkpoint, f"checkpoints/{checkpoint}")
        ledger.expire()

    def test_job_that_takes_its_agents_with_it_is_paused(self, ledger: Ledger) -> None:
        job, innocent = submit(ledger), submit(ledger)
        for _ in range(MOST_LOSSES - 1):
            self.lose(ledger, job)
            assert ledger.job(job.id).state is JobState.QUEUED
        self.lose(ledger, job)
        paused = ledger.job(job.id)
        assert (paused.state, paused.reason) == (JobState.PAUSED, Reason.INTERRUPTED)
        assert paused.message.startswith("attempts in a row were lost with their agent or its Ray")
        assert "did not renew its lease" in paused.message
        assert paused.message in ledger.why(job.id).message
        assert ledger.job(innocent.id).state is JobState.QUEUED

    def test_a_machine_that_loses_attempts_as_they_start_says_little_about_the_job(self, ledger: Ledger) -> None:
        job = submit(ledger)
        for _ in range(MOST_LOSSES * STARTS_FOR_A_LOSS - 1):
            self.lose(ledger, job, started=False)
        assert ledger.job(job.id).state is JobState.QUEUED
        self.lose(ledger, job, started=False)
        assert ledger.job(job.id).state is JobState.PAUSED, "it cannot go on for ever at the head of the queue"

    def test_starts_that_were_lost_count_beside_what_was_lost_in_training(self, ledger: Ledger) -> None:
        job = submit(ledger)
        for _ in range(STARTS_FOR_A_LOSS):
            self.lose(ledger, job, started=False)
        for _ in range(MOST_LOSSES - 1):
            assert ledger.job(job.id).state is JobState.QUEUED
            self.lose(ledger, job)
        assert ledger.job(job.id).state is JobState.PAUSED

    def test_a_resumed_one_gets_as_many_tries_again(self, ledger: Ledger) -> None:
        job = submit(ledger)
        for _ in range(MOST_LOSSES):
            self.lose(ledger, job)
        ledger.resume(job.id)
        self.lose(ledger, job)
        assert ledger.job(job.id).state is JobState.QUEUED

    def test_job_that_gets_ahead_is_never_suspected(self, ledger: Ledger) -> None:
        job = submit(ledger)
        for number in range(3 * MOST_LOSSES):
            self.lose(ledger, job, checkpoint=number if number % 2 else None)
        assert ledger.job(job.id).state is JobState.QUEUED

    def test_what_was_handed_back_is_not_lost(self, ledger: Ledger) -> None:
        job = submit(ledger)
        for _ in range(2 * MOST_LOSSES):
            ledger.retry(held(ledger, "agent", job), Reason.INTERRUPTED, "the agent was shut down")
        assert ledger.job(job.id).state is JobState.QUEUED

    def test_a_lost_ray_and_an_agent_that_was_started_again_count(self, ledger: Ledger) -> None:
        job = submit(ledger)
        for number in range(MOST_LOSSES):
            agent = beat(ledger, "a", incarnation=str(number))
            assert ledger.job(job.id).state is JobState.QUEUED
            lease = held(ledger, agent, job)
            ledger.running(lease, 1)
        ledger.retry(lease, Reason.INTERRUPTED, "Ray was lost", lost=True)
        assert ledger.job(job.id).state is JobState.PAUSED
        assert ledger.retry(lease, Reason.INTERRUPTED, "Ray was lost", lost=True).state is JobState.PAUSED

    def test_job_that_was_to_stop_stops(self, ledger: Ledger) -> None:
        job = submit(ledger)
        for _ in range(MOST_LOSSES - 1):
            self.lose(ledger, job)
        lease = held(ledger, "agent", job)
        ledger.running(lease, 1)
        ledger.request_stop(job.id)
        ledger.retry(lease, Reason.INTERRUPTED, lost=True)
        assert ledger.job(job.id).state is JobState.STOPPED


class TestStorage:
    def test_job_goes_on_only_where_its_checkpoints_are(self, ledger: Ledger) -> None:
        near, far, also_near = beat(ledger, "near", "s1"), beat(ledger, "far", "s2"), beat(ledger, "also-near", "s1")
        job = submit(ledger)
        lease = held(ledger, near, job)
        assert ledger.attempts(job.id)[0].storage == "s1"
        ledger.saved(lease, 7, "checkpoints/7")
        ledger.retry(lease, Reason.INTERRUPTED, "drained")
        assert ledger.lease(far, 60) is None
        assert ledger.lease(far, 60, job.id) is None
        assert ledger.why(job.id).kind is WhyKind.RUNS_NOW
        again = ledger.lease(also_near, 60)
        assert again is not None
        assert again.job_id == job.id

    def test_others_are_not_held_up_by_it(self, ledger: Ledger) -> None:
        near, far = beat(ledger, "near", "s1"), beat(ledger, "far", "s2")
        job = submit(ledger)
        lease = held(ledger, near, job)
        ledger.saved(lease, 7, "checkpoints/7")
        ledger.retry(lease, Reason.INTERRUPTED, "drained")
        other = submit(ledger)
        taken = ledger.lease(far, 60)
        assert taken is not None
        assert taken.job_id == other.id

    def test_before_its_first_checkpoint_it_goes_anywhere(self, ledger: Ledger) -> None:
        near, far = beat(ledger, "near", "s1"), beat(ledger, "far", "s2")
        job = submit(ledger)
        ledger.retry(held(ledger, near, job), Reason.INTERRUPTED, "drained")
        assert ledger.lease(far, 60) is not None

    def test_why_says_where_they_are(self, ledger: Ledger) -> None:
        near, _ = beat(ledger, "near", "s1"), beat(ledger, "far", "s2")
        job = submit(ledger)
        lease = held(ledger, near, job)
        ledger.saved(lease, 7, "checkpoints/7")
        ledger.retry(lease, Reason.INTERRUPTED, "drained")
        ledger.heartbeat("near", "1", [], [], {}, "s1")
        why = ledger.why(job.id)
        assert why.kind is WhyKind.OTHER_STORAGE
        assert why.message == "its checkpoints are in the storage s1; agents there: near, with no node now"
        assert "start near there" in why.change
        assert ledger.queue()[0].why == why


class TestCheckpoints:
    def test_the_newest_stands_with_the_attempt_and_is_no_event(self, ledger: Ledger) -> None:
        lease = running(ledger)
        before = ledger.events(lease.job_id), ledger.news(None).seen
        for step in (10, 20):
            ledger.saved(lease, step, f"checkpoints/step-{step}")
        (attempt,) = ledger.attempts(lease.job_id)
        assert (attempt.checkpoint_step, attempt.checkpoint_path) == (20, "checkpoints/step-20")
        assert attempt.checkpoint_at == pytest.approx(ledger.now(), abs=5)
        assert (ledger.events(lease.job_id), ledger.news(None).seen) == before


class TestToldTwice:
    def test_note_with_a_key_is_recorded_once(self, ledger: Ledger) -> None:
        lease, other = running(ledger), running(ledger)
        for one in (lease, lease, other):
            ledger.note(one, EventKind.WAITING, "2 s", key="waiting-1")
        ledger.note(lease, EventKind.WAITING, "4 s", key="waiting-2")
        for one, messages in ((lease, ["2 s", "4 s"]), (other, ["2 s"])):
            told = [event.message for event in ledger.events(one.job_id) if event.kind == "waiting"]
            assert told == messages

    def test_lease_whose_answer_got_lost_is_given_again(self, ledger: Ledger) -> None:
        agent = beat(ledger, "a")
        submit(ledger)
        submit(ledger)
        first = ledger.lease(agent, 60, secret="s1")
        assert first is not None
        assert ledger.lease(agent, 60, secret="s1") == first
        second = ledger.lease(agent, 60, secret="s2")
        assert second is not None
        assert second.job_id != first.job_id
        assert [len(ledger.attempts(one.job_id)) for one in (first, second)] == [1, 1]

    def test_request_that_was_answered_takes_no_second_job(self, ledger: Ledger) -> None:
        agent = beat(ledger, "a")
        submit(ledger)
        submit(ledger)
        lease = ledger.lease(agent, 60, secret="s1")
        assert lease is not None
        ledger.finish(lease, JobState.FAILED, Reason.USER_ERROR)
        assert ledger.lease(agent, 60, secret="s1") is None

    def test_only_who_shows_its_secret_holds_an_attempt(self, ledger: Ledger) -> None:
        agent, job = beat(ledger, "a"), submit(ledger)
        lease = ledger.lease(agent, 60, secret="s1")
        assert lease is not None
        assert ledger.held(job.id, 1, "s1") == LeaseKey(job.id, 1, agent, "s1")
        again = ledger.lease_again(lease, 60, Reason.INFRASTRUCTURE)
        assert again is not None
        assert ledger.held(job.id, 2, "s1") == LeaseKey(job.id, 2, agent, "s1")
        assert ledger.lease(agent, 60, secret="s1") == again
        for secret in ("", "s2"):
            with pytest.raises(ConflictError, match="not its secret"):
                ledger.held(job.id, 2, secret)
        with pytest.raises(StaleLeaseError):
            ledger.held(job.id, 3, "s1")
        with pytest.raises(NotFoundError):
            ledger.held(job.id[:-1], 2, "s1")

    def test_many_are_renewed_at_once_and_each_has_its_own_answer(self, ledger: Ledger) -> None:
        agent, secrets = beat(ledger, "a"), ["s0", "s1", "s2"]
        for _ in secrets:
            submit(ledger)
        leases = [ledger.lease(agent, 60, secret=secret) for secret in secrets]
        ids = [lease.job_id for lease in leases if lease]
        ledger.request_stop(ids[2], grace=5.0)
        told = ledger.renew_all(
            [
                Renewal(ids[2], 1, "s2"),
                Renewal(ids[1], 1, "another"),
                Renewal("none", 1, "s1"),
                Renewal(ids[1], 2, "s1"),
                Renewal(ids[0], 1, "s0", {"step": 7}),
            ],
            600,
        )
        stopping, starting = Renewed(JobState.STOPPING, 5.0, granted=1), Renewed(JobState.STARTING, granted=1)
        assert [told[0], told[-1]] == [stopping, starting]
        assert [type(one) for one in told[1:-1]] == [ConflictError, NotFoundError, StaleLeaseError]
        assert ledger.job(ids[0]).progress == {"step": 7}
        lasting = [(ledger.job(one).expires_at or 0.0) - ledger.now() for one in ids]
        assert [seconds > 300 for seconds in lasting] == [True, False, True]
        ledger.expire(dead_agents=[agent])
        assert isinstance(ledger.renew_all([Renewal(ids[0], 1, "s0")], 600)[0], StaleLeaseError)

    def test_attempt_that_was_leased_without_a_secret_is_held_by_nobody_else(self, ledger: Ledger) -> None:
        job = submit(ledger)
        held(ledger, "in-process", job)
        with pytest.raises(ConflictError, match="not its secret"):
            ledger.held(job.id, 1, "")
        assert isinstance(ledger.renew_all([Renewal(job.id, 1, "")], 60)[0], ConflictError)

    def test_same_request_in_flight_twice_is_one_lease(self, ledger: Ledger) -> None:
        agent = beat(ledger, "a")
        for _ in range(4):
            submit(ledger)
        leases = at_once(4, lambda _: ledger.lease(agent, 60, secret="s1"))
        assert {lease.job_id for lease in leases if lease} == {leases[0].job_id}
        assert ledger.counts()[JobState.STARTING] == 1


@pytest.mark.parametrize("owner", ["never-heard-of/1", "a/2"])
def test_agent_that_sent_no_heartbeat_is_given_nothing(ledger: Ledger, owner: str) -> None:
    """Else it would pass by the policy and the quotas."""
    beat(ledger, "a")
    ledger.set_quota("user", "*", jobs=0)
    ledger.submit(SPEC, name="digits", submitted_by="ada")
    with pytest.raises(ConflictError, match=f"nothing is known of the agent {owner}"):
        ledger.lease(owner, 60)
    assert leased(ledger).agent == "agent-1", "a process that is no cluster's agent, and asks for this very job"
