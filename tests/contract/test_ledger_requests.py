"""What every database behind the ledger must do: users' requests, time, events, odd text."""

from __future__ import annotations

import math
import time

import pytest
from ledger_steps import leased, running, submit

from epochal.errors import ConflictError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import EventKind, JobState, Outcome, Reason


class TestRequests:
    def test_stop_of_a_running_job_is_told_and_carried_out(self, ledger: Ledger) -> None:
        lease = running(ledger)
        job = ledger.request_stop(lease.job_id, "not needed")
        assert (job.state, job.wanted) == (JobState.STOPPING, JobState.STOPPED)
        assert ledger.renew(lease, 60).state is JobState.STOPPING
        job = ledger.stopped(lease)
        assert (job.state, job.reason, job.message) == (JobState.STOPPED, Reason.STOPPED_BY_USER, "not needed")
        assert (job.wanted, ledger.attempts(job.id)[0].outcome) == (None, Outcome.STOPPED)
        assert ledger.stopped(lease) == job

    @pytest.mark.parametrize(
        ("asked", "graces"),
        [
            (("stop",), [30.0]),
            (("pause 5",), [5.0]),
            (("stop 0",), [0.0]),
            (("stop", "stop 5", "stop 60", "stop 0"), [30.0, 5.0, 5.0, 0.0]),
            (("pause 5", "stop"), [5.0, 5.0]),
            (("pause 5", "stop 2"), [5.0, 2.0]),
            (("preempt", "pause", "stop 0"), [None, 30.0, 0.0]),
        ],
    )
    def test_the_least_grace_that_was_asked_for_counts(
        self, ledger: Ledger, asked: tuple[str, ...], graces: list[float | None]
    ) -> None:
        lease = running(ledger)
        told: list[float | None] = []
        for one in asked:
            verb, _, grace = one.partition(" ")
            ask = ledger.preempt if verb == "preempt" else getattr(ledger, f"request_{verb}")
            told.append(ask(lease.job_id, **({"grace": float(grace)} if grace else {})).grace)
        assert told == graces
        assert ledger.renew(lease, 60).grace == graces[-1]
        events = [event.detail for event in ledger.events(lease.job_id) if event.kind.endswith("_requested")]
        assert events[-1] == ({} if graces[-1] is None else {"grace": graces[-1]})
        assert ledger.stopped(lease).grace is None

    def test_nothing_is_killed_of_a_job_without_workers(self, ledger: Ledger) -> None:
        assert ledger.request_pause(submit(ledger).id, grace=5.0).grace is None

    def test_what_was_said_of_a_stop_is_kept_with_how_it_ended(self, ledger: Ledger) -> None:
        lease = running(ledger)
        ledger.request_stop(lease.job_id, "wrong data")
        ledger.request_stop(lease.job_id, grace=0)
        assert ledger.stopped(lease, "rank 1: killed").message == "wrong data; rank 1: killed"

    def test_stop_while_starting(self, ledger: Ledger) -> None:
        lease = leased(ledger)
        ledger.request_stop(lease.job_id)
        assert ledger.running(lease, world_size=2).state is JobState.STOPPING
        assert ledger.stopped(lease).state is JobState.STOPPED

    def test_stop_of_a_job_without_attempt(self, ledger: Ledger) -> None:
        queued, paused = submit(ledger), ledger.pause(running(ledger))
        for job in (queued, paused):
            assert ledger.request_stop(job.id).state is JobState.STOPPED
        assert ledger.job(queued.id).ended_at is not None

    def test_stop_again_changes_nothing(self, ledger: Ledger) -> None:
        lease = running(ledger)
        assert ledger.request_stop(lease.job_id) == ledger.request_stop(lease.job_id)
        stopped = ledger.stopped(lease)
        assert ledger.request_stop(stopped.id) == stopped

    def test_stop_of_a_job_that_ended(self, ledger: Ledger) -> None:
        job = ledger.finish(running(ledger), JobState.FAILED, Reason.USER_ERROR)
        with pytest.raises(ConflictError, match="is FAILED"):
            ledger.request_stop(job.id)

    def test_job_that_finishes_first_has_succeeded(self, ledger: Ledger) -> None:
        lease = running(ledger)
        ledger.request_stop(lease.job_id)
        job = ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
        assert (job.state, job.wanted) == (JobState.SUCCEEDED, None)

    def test_stopped_without_a_request(self, ledger: Ledger) -> None:
        lease = running(ledger)
        for call in (lambda: ledger.stopped(lease),
                     lambda: ledger.finish(lease, JobState.STOPPED, Reason.STOPPED_BY_USER)):  # fmt: skip
            with pytest.raises(ConflictError, match="cannot become STOPPED"):
                call()

    def test_pause(self, ledger: Ledger) -> None:
        lease = running(ledger)
        assert ledger.request_pause(lease.job_id).wanted is JobState.PAUSED
        assert ledger.stopped(lease).state is JobState.PAUSED
        assert ledger.request_pause(submit(ledger).id).state is JobState.PAUSED

    def test_preemption(self, ledger: Ledger) -> None:
        lease = running(ledger)
        assert ledger.preempt(lease.job_id).wanted is JobState.QUEUED
        job = ledger.stopped(lease)
        assert (job.state, job.reason) == (JobState.QUEUED, Reason.PREEMPTED)
        assert ledger.preempt(job.id) == job

    def test_preemption_needs_a_live_attempt(self, ledger: Ledger) -> None:
        job = ledger.request_pause(submit(ledger).id)
        with pytest.raises(ConflictError, match="is PAUSED: it has nothing to give up"):
            ledger.preempt(job.id)

    @pytest.mark.parametrize("hand_back", ["retry", "pause"])
    def test_stronger_request_wins(self, ledger: Ledger, hand_back: str) -> None:
        lease = running(ledger)
        ledger.preempt(lease.job_id)
        ledger.request_pause(lease.job_id)
        with pytest.raises(ConflictError, match="will be PAUSED"):
            ledger.preempt(lease.job_id)
        ledger.request_stop(lease.job_id)
        with pytest.raises(ConflictError, match="will be STOPPED"):
            ledger.request_pause(lease.job_id)
        job = getattr(ledger, hand_back)(lease, Reason.INFRASTRUCTURE, "rank 1 was lost")
        assert (job.state, job.reason) == (JobState.STOPPED, Reason.STOPPED_BY_USER)
        assert ledger.attempts(job.id)[0].reason is Reason.INFRASTRUCTURE

    def test_pause_overrules_preemption(self, ledger: Ledger) -> None:
        lease = running(ledger)
        ledger.preempt(lease.job_id)
        assert ledger.pause(lease).state is JobState.PAUSED

    def test_resume_needs_a_paused_job(self, ledger: Ledger) -> None:
        lease = running(ledger)
        with pytest.raises(ConflictError, match="is RUNNING, not PAUSED"):
            ledger.resume(lease.job_id)
        for ask, hint in (
            (ledger.request_pause, "resume it once it is PAUSED"),
            (ledger.request_stop, "will be STOPPED"),
        ):
            ask(lease.job_id)
            with pytest.raises(ConflictError, match="is STOPPING, not PAUSED") as caught:
                ledger.resume(lease.job_id)
            assert hint in caught.value.hint


class TestTime:
    def test_waiting_and_running_add_up_over_attempts(self, ledger: Ledger) -> None:
        job = submit(ledger)
        for _ in range(2):
            time.sleep(0.06)
            lease = ledger.lease("agent-1", 60, job.id)
            assert lease is not None
            time.sleep(0.03)
            ledger.running(lease, world_size=1)
            time.sleep(0.05)
            job = ledger.retry(lease, Reason.INFRASTRUCTURE)
        assert job.first_started_at is not None
        assert job.waited_seconds >= 0.16
        assert job.ran_seconds >= 0.08
        total = job.waited_seconds + job.ran_seconds
        assert total == pytest.approx(job.updated_at - job.submitted_at, abs=0.02)

    def test_time_of_the_present_state_counts(self, ledger: Ledger) -> None:
        waiting = submit(ledger)
        assert waiting.pending_seconds(waiting.submitted_at + 5) == pytest.approx(5, abs=0.02)
        assert waiting.running_seconds(waiting.submitted_at + 5) == 0
        assert waiting.pending_seconds(waiting.submitted_at - 5) == 0
        job = ledger.job(running(ledger).job_id)
        assert job.running_seconds(job.entered_at + 7) == pytest.approx(7)
        assert job.pending_seconds(job.entered_at + 7) == job.waited_seconds

    def test_first_start_is_kept(self, ledger: Ledger) -> None:
        lease = running(ledger)
        first = ledger.job(lease.job_id).first_started_at
        ledger.retry(lease, Reason.INFRASTRUCTURE)
        again = ledger.lease("agent-1", 60)
        assert again is not None
        time.sleep(0.01)
        job = ledger.running(again, world_size=2)
        assert job.first_started_at == first
        assert job.started_at is not None
        assert job.started_at > (first or 0)


class TestEvents:
    def test_they_tell_the_whole_story(self, ledger: Ledger) -> None:
        lease = leased(ledger)
        ledger.set_run(lease, "run-1", "uri")
        ledger.running(lease, world_size=2)
        ledger.note(lease, EventKind.WAITING, "step 50", {"step": 50})
        ledger.renew(lease, 60, {"step": 60})
        ledger.request_stop(lease.job_id)
        ledger.stopped(lease)
        events = ledger.events(lease.job_id)
        kinds = "submitted leased run_set running waiting stop_requested stopped"
        assert [event.kind for event in events] == kinds.split()
        assert [event.state for event in events if event.state is not event.previous] == [
            JobState.QUEUED, JobState.STARTING, JobState.RUNNING, JobState.STOPPING, JobState.STOPPED,
        ]  # fmt: skip
        assert events[4].detail == {"step": 50}
        assert [event.at for event in events] == sorted(event.at for event in events)

    def test_reading_goes_on_after_an_id(self, ledger: Ledger) -> None:
        lease = running(ledger)
        first, *rest = ledger.events(lease.job_id)
        assert ledger.events(lease.job_id, after=first.id) == rest
        assert ledger.events(lease.job_id, after=first.id, limit=1) == rest[:1]
        assert ledger.events(lease.job_id, after=rest[-1].id) == []

    def test_note_needs_no_lease(self, ledger: Ledger) -> None:
        job = submit(ledger)
        ledger.note(job, EventKind.WAITING)
        ledger.note(job.id, EventKind.WAITING, "by name too")
        assert [event.message for event in ledger.events(job.id)] == ["", "", "by name too"]

    def test_progress_is_the_newest(self, ledger: Ledger) -> None:
        lease = running(ledger)
        ledger.renew(lease, 60, {"step": 1, "loss": math.nan})
        ledger.renew(lease, 60)
        assert ledger.job(lease.job_id).progress == {"step": 1, "loss": "nan"}


def test_text_that_a_database_may_refuse(ledger: Ledger) -> None:
    lease = running(ledger)
    ledger.note(lease, EventKind.WAITING, "a\x00b\ud800c", {"a\x00b": "\ud800", "inf": math.inf})
    job = ledger.finish(lease, JobState.FAILED, Reason.USER_ERROR, "x" * 100_000)
    assert ledger.events(job.id)[-2].message == "a\ufffdb?c"
    assert 20_000 < len(job.message) < 21_000
    assert "80000 characters left out" in job.message
