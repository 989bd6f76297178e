"""What every database behind the ledger must do: jobs, the queue, attempts, leases, expiry."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from ledger_steps import SPEC, leased, running, state, submit
from sqlalchemy import event

from epochal.errors import ConflictError, NotFoundError, StaleLeaseError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import EventKind, JobState, Outcome, Reason
from epochal.ledger.values import Lease


class TestSubmit:
    def test_job_is_kept_as_submitted(self, ledger: Ledger) -> None:
        job = submit(ledger, priority=70, submitted_by="ada", origin={"file": "job.yaml"}, key="k")
        assert ledger.full_job(job.id) == job
        assert (job.state, job.epoch, job.spec) == (JobState.QUEUED, 0, SPEC)
        assert (job.name, job.priority, job.submitted_by, job.origin) == ("digits-cnn", 70, "ada", {"file": "job.yaml"})
        assert job.id.startswith("digits-cnn-")

    def test_without_a_key_the_same_spec_is_another_job(self, ledger: Ledger) -> None:
        first, second = submit(ledger), submit(ledger)
        assert first.id != second.id
        assert first.spec_digest == second.spec_digest
        assert [job.id for job in ledger.jobs()] == [second.id, first.id]

    def test_same_key_is_the_same_job(self, ledger: Ledger) -> None:
        assert submit(ledger, key="k") == submit(ledger, key="k")
        assert len(ledger.jobs()) == 1

    def test_key_of_another_spec_is_refused(self, ledger: Ledger) -> None:
        job = submit(ledger, key="k")
        with pytest.raises(ConflictError, match=f"the key 'k' belongs to {job.id}"):
            ledger.submit({**SPEC, "version": 2}, name="digits-cnn", key="k")

    def test_key_of_other_code_is_refused(self, ledger: Ledger) -> None:
        job = submit(ledger, key="k", origin={"code": "a" * 64})
        with pytest.raises(ConflictError, match=f"belongs to {job.id}, which has other code"):
            submit(ledger, key="k", origin={"code": "b" * 64})


class TestLookingUp:
    def test_by_name_gives_the_newest(self, ledger: Ledger) -> None:
        submit(ledger)
        newest = submit(ledger)
        submit(ledger, "digits-cnn-large")
        assert ledger.full_job("digits-cnn") == newest

    def test_by_unique_prefix(self, ledger: Ledger) -> None:
        submit(ledger, "wine")
        job = submit(ledger)
        assert ledger.full_job("dig") == ledger.full_job(job.id[:-1]) == job

    def test_by_the_run_in_mlflow(self, ledger: Ledger) -> None:
        job = submit(ledger)
        submit(ledger)
        lease = ledger.lease("agent", 30, job.id)
        assert lease is not None
        ledger.set_run(lease, "0123456789abcdef0123456789abcdef", "uri")
        assert ledger.job("0123456789abcdef0123456789abcdef").id == ledger.job("01234567").id == job.id
        for other in ("0123456", "01234568", "%23456789"):
            with pytest.raises(NotFoundError):
                ledger.job(other)

    def test_ambiguous_prefix_lists_what_it_fits(self, ledger: Ledger) -> None:
        first, second = submit(ledger), submit(ledger)
        with pytest.raises(ConflictError, match="fits several jobs") as caught:
            ledger.job("digits-")
        assert first.id in str(caught.value)
        assert second.id in str(caught.value)

    @pytest.mark.parametrize("ref", ["", "%", "_igits", "digits-cnm", "\u00e9"])
    def test_unknown(self, ledger: Ledger, ref: str) -> None:
        submit(ledger)
        with pytest.raises(NotFoundError):
            ledger.job(ref)

    def test_unknown_says_what_is_close(self, ledger: Ledger) -> None:
        submit(ledger)
        with pytest.raises(NotFoundError, match="did you mean 'digits-cnn'"):
            ledger.job("digits-cnm")

    def test_empty_ledger_says_so(self, ledger: Ledger) -> None:
        with pytest.raises(NotFoundError, match="holds no jobs yet"):
            ledger.job("digits-cnn")

    def test_jobs_are_newest_first_and_filtered(self, ledger: Ledger) -> None:
        first, second, third = submit(ledger, submitted_by="ada"), submit(ledger, "wine"), submit(ledger)
        ledger.request_stop(third.id)
        assert [job.id for job in ledger.jobs()] == [third.id, second.id, first.id]
        assert [job.id for job in ledger.jobs([JobState.QUEUED])] == [second.id, first.id]
        assert [job.id for job in ledger.jobs(limit=1)] == [third.id]
        assert [job.id for job in ledger.jobs(before=third.number)] == [second.id, first.id]
        assert [job.id for job in ledger.jobs(name="wine")] == [second.id]
        assert [job.id for job in ledger.jobs(submitted_by="ada")] == [first.id]
        assert ledger.counts()[JobState.QUEUED] == 2
        assert ledger.counts()[JobState.RUNNING] == 0

    def test_the_newest_of_some_states_are_found_without_sorting_all_jobs(self, tmp_path: Path) -> None:
        plans: list[str] = []

        def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
            if statement.startswith("SELECT") and "FROM jobs" in statement:
                asked = connection.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plans.extend(line[3] for line in asked)

        with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
            event.listen(ledger._database.engine, "before_cursor_execute", explain)
            assert ledger.jobs([JobState.SUCCEEDED, JobState.FAILED], limit=100) == []
        assert sum("jobs_recent (state=?)" in line for line in plans) == 2
        assert not [line for line in plans if line.startswith("SCAN jobs")]


class TestQueue:
    def test_priority_then_arrival(self, ledger: Ledger) -> None:
        low, first, second, high = (submit(ledger, priority=priority) for priority in (10, 50, 50, 90))
        order = [ledger.lease("agent-1", 60) for _ in range(4)]
        assert [lease.job_id for lease in order if lease] == [high.id, first.id, second.id, low.id]
        assert ledger.lease("agent-1", 60) is None

    def test_lease_opens_an_attempt(self, ledger: Ledger) -> None:
        lease = leased(ledger)
        assert (lease.job.state, lease.epoch, lease.job.owner) == (JobState.STARTING, 1, "agent-1")
        (attempt,) = ledger.attempts(lease.job_id)
        assert (attempt.epoch, attempt.agent, attempt.outcome) == (1, "agent-1", None)
        assert lease.expires_at == pytest.approx(ledger.now() + 60, abs=5)

    def test_lease_of_a_job_that_does_not_wait(self, ledger: Ledger) -> None:
        lease = leased(ledger)
        assert ledger.lease("agent-2", 60, lease.job_id) is None
        assert ledger.lease("agent-2", 60, "unknown") is None

    def test_job_queued_again_keeps_its_place(self, ledger: Ledger) -> None:
        lease = leased(ledger)
        submit(ledger)
        ledger.retry(lease, Reason.INFRASTRUCTURE)
        again = ledger.lease("agent-1", 60)
        assert again is not None
        assert (again.job_id, again.epoch) == (lease.job_id, 2)


class TestAttempt:
    def test_success(self, ledger: Ledger) -> None:
        lease = leased(ledger)
        job = ledger.running(lease, world_size=2, detail={"nodes": ["a", "b"]})
        assert job.state is JobState.RUNNING
        job = ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED, "done")
        assert (job.state, job.reason, job.message, job.owner) == (JobState.SUCCEEDED, Reason.COMPLETED, "done", None)
        (attempt,) = ledger.attempts(job.id)
        assert (attempt.outcome, attempt.world_size) == (Outcome.SUCCEEDED, 2)
        assert attempt.detail == {"world_size": 2, "nodes": ["a", "b"]}
        assert attempt.ended_at == job.ended_at

    @pytest.mark.parametrize("reason", [Reason.USER_ERROR, Reason.OUT_OF_MEMORY, Reason.TIMEOUT, Reason.HANG])
    def test_failure(self, ledger: Ledger, reason: Reason) -> None:
        job = ledger.finish(running(ledger), JobState.FAILED, reason, "rank 1: no such file")
        assert (job.state, job.reason, job.message) == (JobState.FAILED, reason, "rank 1: no such file")
        assert ledger.attempts(job.id)[0].outcome is Outcome.FAILED

    @pytest.mark.parametrize("end", [(JobState.SUCCEEDED, Reason.USER_ERROR), (JobState.FAILED, Reason.COMPLETED),
                                     (JobState.PAUSED, Reason.STOPPED_BY_USER)])  # fmt: skip
    def test_ends_that_make_no_sense(self, ledger: Ledger, end: tuple[JobState, Reason]) -> None:
        lease = running(ledger)
        with pytest.raises(ValueError, match="cannot finish"):
            ledger.finish(lease, *end)
        assert state(ledger, lease) is JobState.RUNNING

    def test_success_needs_training(self, ledger: Ledger) -> None:
        lease = leased(ledger)
        with pytest.raises(ConflictError, match="cannot become SUCCEEDED"):
            ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)

    def test_retry_queues_and_ends_the_attempt(self, ledger: Ledger) -> None:
        lease = running(ledger)
        job = ledger.retry(lease, Reason.INFRASTRUCTURE, "rank 1 was lost")
        assert (job.state, job.reason, job.message) == (JobState.QUEUED, Reason.INFRASTRUCTURE, "rank 1 was lost")
        again = ledger.lease("agent-2", 60)
        assert again is not None
        assert (again.job.reason, again.job.message, again.job.started_at) == (None, "", None)
        assert [attempt.outcome for attempt in ledger.attempts(job.id)] == [Outcome.FAILED, None]

    def test_pause_and_resume(self, ledger: Ledger) -> None:
        lease = running(ledger)
        job = ledger.pause(lease, Reason.STOPPED_BY_USER, "Ctrl-C")
        assert (job.state, job.reason, job.ended_at) == (JobState.PAUSED, Reason.STOPPED_BY_USER, None)
        assert ledger.lease("agent-1", 60) is None
        assert ledger.resume(job.id).state is JobState.QUEUED
        again = ledger.lease("agent-1", 60)
        assert again is not None
        assert again.epoch == 2

    def test_run_is_remembered_over_attempts(self, ledger: Ledger) -> None:
        lease = leased(ledger)
        ledger.set_run(lease, "run-1", "http://mlflow")
        ledger.retry(lease, Reason.INFRASTRUCTURE)
        job = ledger.job(lease.job_id)
        assert (job.run_id, job.tracking_uri) == ("run-1", "http://mlflow")

    def test_what_the_data_was_taken_for_is_that_of_the_newest_attempt(self, ledger: Ledger) -> None:
        lease = leased(ledger)
        assert ledger.full_job(lease.job_id).data is None
        for samples in (3, 4):
            ledger.set_data(lease, {"train_samples": samples})
        assert ledger.full_job(lease.job_id).data == {"train_samples": 4}
        ledger.retry(lease, Reason.INFRASTRUCTURE)
        with pytest.raises(StaleLeaseError):
            ledger.set_data(lease, {})
        again = ledger.lease("agent-1", 60, lease.job_id)
        assert again is not None
        assert again.job.data == {"train_samples": 4}

    def test_password_of_the_tracking_server_is_not_kept(self, ledger: Ledger) -> None:
        lease = leased(ledger)
        for _ in range(2):
            ledger.set_run(lease, "run-1", "https://ada:canary@mlflow.example.org/team")
        assert ledger.job(lease.job_id).tracking_uri == "https://mlflow.example.org/team"
        assert "canary" not in repr(ledger.events(lease.job_id))

    def test_world_size_can_change(self, ledger: Ledger) -> None:
        lease = running(ledger)
        ledger.running(lease, world_size=3)
        assert ledger.attempts(lease.job_id)[0].world_size == 3
        assert ledger.events(lease.job_id)[-1].kind == "resized"

    def test_repeated_calls_change_nothing(self, ledger: Ledger) -> None:
        lease = leased(ledger)
        calls = [
            lambda: ledger.running(lease, world_size=2),
            lambda: ledger.set_run(lease, "run-1", "uri"),
            lambda: ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED),
        ]
        for call in calls:
            first = call()
            events = ledger.events(lease.job_id)
            assert call() == first
            assert ledger.events(lease.job_id) == events

    @pytest.mark.parametrize("end", ["retry", "pause"])
    def test_repeated_handing_back(self, ledger: Ledger, end: str) -> None:
        lease = running(ledger)
        first = getattr(ledger, end)(lease, Reason.STOPPED_BY_USER)
        assert getattr(ledger, end)(lease, Reason.STOPPED_BY_USER) == first


class TestFencing:
    def test_lease_that_ran_out_can_be_renewed_until_someone_notices(self, ledger: Ledger) -> None:
        lease = running(ledger, ttl=0)
        assert ledger.renew(lease, 60).state is JobState.RUNNING
        assert ledger.expire() == []

    def test_every_write_of_an_older_epoch_is_refused(self, ledger: Ledger) -> None:
        old = running(ledger, ttl=0)
        ledger.expire()
        assert ledger.lease("agent-2", 60, old.job_id)
        self.assert_refused(ledger, old)

    def test_every_write_after_expiry_is_refused(self, ledger: Ledger) -> None:
        old = running(ledger, ttl=0)
        ledger.expire()
        self.assert_refused(ledger, old)

    def test_every_write_after_the_end_is_refused(self, ledger: Ledger) -> None:
        old = running(ledger)
        ledger.finish(old, JobState.FAILED, Reason.USER_ERROR)
        self.assert_refused(ledger, old)

    def test_the_run_of_a_short_training_is_told_after_its_end(self, ledger: Ledger) -> None:
        lease = running(ledger)
        ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
        for _ in range(2):  # the answer got lost
            assert ledger.set_run(lease, "run", "uri").run_id == "run"
        with pytest.raises(StaleLeaseError):
            ledger.set_run(lease, "another", "uri")

    def test_the_run_that_an_older_attempt_tells_is_refused(self, ledger: Ledger) -> None:
        old = running(ledger, ttl=0)
        ledger.expire()
        assert ledger.lease("agent-2", 60, old.job_id)
        with pytest.raises(StaleLeaseError):
            ledger.set_run(old, "run", "uri")

    def assert_refused(self, ledger: Ledger, old: Lease) -> None:
        before = ledger.job(old.job_id), ledger.attempts(old.job_id), ledger.events(old.job_id)
        writes = [
            lambda: ledger.renew(old, 60, {"step": 1}),
            lambda: ledger.running(old, world_size=2),
            lambda: ledger.note(old, EventKind.WAITING),
            lambda: ledger.saved(old, 7, "checkpoints/7"),
            lambda: ledger.finish(old, JobState.SUCCEEDED, Reason.COMPLETED),
            lambda: ledger.finish(old, JobState.FAILED, Reason.HANG),
            lambda: ledger.retry(old, Reason.INFRASTRUCTURE),
            lambda: ledger.lease_again(old, 60, Reason.INFRASTRUCTURE),
            lambda: ledger.pause(old),
            lambda: ledger.stopped(old),
        ]
        for write in writes:
            with pytest.raises(StaleLeaseError, match=f"attempt {old.epoch} of {old.job_id} is over"):
                write()
        assert before == (ledger.job(old.job_id), ledger.attempts(old.job_id), ledger.events(old.job_id))


class TestExpiry:
    def test_job_queues_again(self, ledger: Ledger) -> None:
        lost, kept = running(ledger, ttl=0), running(ledger)
        assert [job.id for job in ledger.overdue()] == [lost.job_id]
        (attempt,) = ledger.expire()
        assert (attempt.job_id, attempt.outcome, attempt.reason) == (
            lost.job_id, Outcome.INTERRUPTED, Reason.INTERRUPTED,
        )  # fmt: skip
        assert state(ledger, lost) is JobState.QUEUED
        assert state(ledger, kept) is JobState.RUNNING
        assert ledger.expire() == []

    def test_job_waits_for_the_user(self, ledger: Ledger) -> None:
        lost = leased(ledger, ttl=0)
        ledger.expire(then=JobState.PAUSED)
        job = ledger.job(lost.job_id)
        assert (job.state, job.reason, job.owner) == (JobState.PAUSED, Reason.INTERRUPTED, None)
        assert "agent-1 went away" in job.message

    def test_job_that_was_to_stop_stops(self, ledger: Ledger) -> None:
        lost = running(ledger, ttl=0)
        ledger.request_stop(lost.job_id)
        ledger.expire()
        job = ledger.job(lost.job_id)
        assert (job.state, job.reason) == (JobState.STOPPED, Reason.STOPPED_BY_USER)
        assert ledger.attempts(job.id)[0].outcome is Outcome.INTERRUPTED

    def test_agent_known_to_be_dead(self, ledger: Ledger) -> None:
        lost = running(ledger)
        assert ledger.expire(dead_agents=["agent-2"]) == []
        assert [attempt.job_id for attempt in ledger.expire(dead_agents=["agent-1"])] == [lost.job_id]

    def test_clock_is_the_database_s(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        """This process's clock may say anything."""
        lease, lost = running(ledger, ttl=60), running(ledger, ttl=0)
        real = time.time
        for shift in (-3600, 3600):
            monkeypatch.setattr(time, "time", lambda shift=shift: real() + shift)
            assert ledger.now() == pytest.approx(real(), abs=5)
            assert {attempt.job_id for attempt in ledger.expire()} <= {lost.job_id}
            ledger.renew(lease, 60)
        monkeypatch.undo()
        assert state(ledger, lease) is JobState.RUNNING
        assert state(ledger, lost) is JobState.QUEUED
