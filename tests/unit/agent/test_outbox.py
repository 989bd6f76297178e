"""What an attempt tells arrives in order, once, and however long the ledger is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from epochal.agent import outbox as outbox_module
from epochal.agent.in_process import LedgerSource
from epochal.agent.logs import LogShipper, unshipped
from epochal.agent.outbox import Listener, Outbox
from epochal.agent.retry_policy import Ending, Terms, decide
from epochal.errors import EpochalError, UnreachableError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.ledger.values import Job, Lease
from epochal.spec.job import Retry
from flaky_source import FlakySource
from polling import until

TERMS = Terms(Retry(), hands_back=True)


class Heard:
    """What the outbox tells its owner."""

    def __init__(self) -> None:
        self.states: list[JobState] = []
        self.graces: list[float | None] = []
        self.lost: list[EpochalError] = []

    @property
    def listener(self) -> Listener:
        return Listener(lambda job: self.states.append(job.state), self.graces.append, self.lost.append)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LedgerSource]:
    monkeypatch.setattr(outbox_module, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(outbox_module, "pause_after", lambda failures: 0.02)
    with LedgerSource.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        yield ledger


@pytest.fixture
def source(ledger: LedgerSource) -> FlakySource:
    return FlakySource(ledger)


@pytest.fixture
def lease(ledger: Ledger) -> Lease:
    job = ledger.submit({"version": 1}, name="told")
    lease = ledger.lease("agent/1", 30, job.id)
    assert lease is not None
    return lease


def kinds(ledger: Ledger, job_id: str) -> list[str]:
    return [event.kind for event in ledger.events(job_id)]


def tell_a_whole_attempt(outbox: Outbox, source: FlakySource, lease: Lease) -> None:
    outbox.tell(partial(source.running, lease, 2, {}))
    outbox.tell(partial(source.set_run, lease, "run", "uri"))
    outbox.tell(partial(source.note, lease, EventKind.WAITING))
    outbox.progress({"step": 7})
    outbox.end(partial(decide, source, lease, Ending(Reason.COMPLETED), TERMS))


WHOLE = ["submitted", "leased", "running", "run_set", "waiting", "succeeded"]


def test_everything_arrives_in_order(ledger: Ledger, source: FlakySource, lease: Lease) -> None:
    heard = Heard()
    outbox = Outbox(source, lease, heard.listener)
    tell_a_whole_attempt(outbox, source, lease)
    job = outbox.wait(10)
    assert job is not None
    assert job.state is JobState.SUCCEEDED
    assert kinds(ledger, job.id) == WHOLE
    assert job.progress == {"step": 7}
    assert heard.states[-1] is JobState.SUCCEEDED
    assert (heard.graces, heard.lost) == ([], [])


def test_nothing_is_lost_or_doubled_while_the_ledger_is_away(ledger: Ledger, source: FlakySource, lease: Lease) -> None:
    heard = Heard()
    source.away.set()
    outbox = Outbox(source, lease, heard.listener)
    tell_a_whole_attempt(outbox, source, lease)
    until(lambda: source.refused > 5, "refused calls")
    assert kinds(ledger, lease.job_id) == WHOLE[:2]
    source.away.clear()
    assert outbox.wait(10) is not None
    assert kinds(ledger, lease.job_id) == WHOLE
    assert ledger.job(lease.job_id).progress == {"step": 7}


@pytest.mark.parametrize("call", ["running", "set_run", "finish", "renew"])
def test_an_answer_that_gets_lost_is_asked_for_again(
    ledger: Ledger, source: FlakySource, lease: Lease, call: str
) -> None:
    source.lose = {call}
    outbox = Outbox(source, lease, Heard().listener)
    tell_a_whole_attempt(outbox, source, lease)
    job = outbox.wait(10)
    assert job is not None
    assert job.state is JobState.SUCCEEDED
    assert kinds(ledger, job.id) == WHOLE


@pytest.mark.parametrize("loses", [set(), {"lease_again"}])
def test_a_failed_attempt_ends_with_the_lease_of_the_next(
    ledger: Ledger, source: FlakySource, lease: Lease, loses: set[str]
) -> None:
    source.lose = loses
    outbox = Outbox(source, lease, Heard().listener)
    terms = Terms(Retry(infra=1), hands_back=True)
    outbox.end(partial(decide, source, lease, Ending(Reason.INFRASTRUCTURE, "rank 1"), terms))
    job = outbox.wait(10)
    assert job is not None
    assert (job.state, job.epoch, job.owner) == (JobState.STARTING, 2, lease.agent)
    assert outbox.next_lease is not None
    assert (outbox.next_lease.epoch, outbox.next_lease.job) == (2, job)
    assert len(ledger.attempts(job.id)) == 2


@pytest.mark.parametrize("ending", [Ending(None), Ending(Reason.INTERRUPTED, "drained"), Ending(Reason.HANG, "rank 1")])
def test_the_end_is_decided_once_even_where_its_answer_gets_lost(
    ledger: Ledger, source: FlakySource, lease: Lease, ending: Ending
) -> None:
    ledger.running(lease, 2)
    ledger.request_pause(lease.job_id)
    source.lose = {"stopped", "retry"}
    outbox = Outbox(source, lease, Heard().listener)
    outbox.end(partial(decide, source, lease, ending, TERMS))
    job = outbox.wait(10)
    assert job is not None
    assert job.state is JobState.PAUSED
    assert kinds(ledger, job.id)[-1] in ("paused", "requeued")


def test_progress_is_told_with_a_renewal_and_a_stop_is_heard_with_the_grace_that_it_has(
    ledger: Ledger, source: FlakySource, lease: Lease
) -> None:
    heard = Heard()
    outbox = Outbox(source, lease, heard.listener)
    outbox.tell(partial(source.running, lease, 1, {}))
    for step in range(20):
        outbox.progress({"step": step})
        time.sleep(0.005)
    until(lambda: ledger.job(lease.job_id).progress == {"step": 19}, "the last step")
    assert heard.graces == []
    for grace in (20.0, 0.0):
        ledger.request_stop(lease.job_id, grace=grace)
        until(lambda grace=grace: grace in heard.graces, "the stop is heard")
    outbox.end(partial(decide, source, lease, Ending(None), TERMS))
    assert (job := outbox.wait(10)) is not None
    assert job.state is JobState.STOPPED


def test_a_lease_that_ran_out_while_the_ledger_was_away_is_renewed_first(
    ledger: Ledger, source: FlakySource, lease: Lease
) -> None:
    heard = Heard()
    outbox = Outbox(source, lease, heard.listener)
    outbox.tell(partial(source.running, lease, 1, {}))
    until(lambda: ledger.job(lease.job_id).state is JobState.RUNNING, "RUNNING")
    source.away.set()
    until(lambda: source.refused > 3, "refused calls")
    ledger.renew(lease, -5)
    source.away.clear()
    until(lambda: (ledger.job(lease.job_id).expires_at or 0) > ledger.now(), "a renewal")
    assert not heard.lost
    outbox.end(partial(decide, source, lease, Ending(Reason.COMPLETED), TERMS))
    assert outbox.wait(10) is not None


def test_a_lease_that_was_taken_away_is_heard_at_once(ledger: Ledger, source: FlakySource, lease: Lease) -> None:
    heard = Heard()
    outbox = Outbox(source, lease, heard.listener)
    ledger.running(lease, 1)
    ledger.expire(dead_agents=["agent/1"])
    assert outbox.wait(10) is None
    assert len(heard.lost) == 1
    assert ledger.job(lease.job_id).state is JobState.QUEUED


def test_what_the_ledger_refuses_does_not_hold_up_the_rest(ledger: Ledger, source: FlakySource, lease: Lease) -> None:
    def refused() -> Job:
        raise EpochalError("this cannot be stored")

    outbox = Outbox(source, lease, Heard().listener)
    outbox.tell(refused)
    tell_a_whole_attempt(outbox, source, lease)
    assert outbox.wait(10) is not None
    assert kinds(ledger, lease.job_id) == WHOLE


@pytest.mark.parametrize("patience", [0.0, 0.1])
def test_an_end_that_cannot_be_written_down_is_given_up_where_nobody_else_waits(
    ledger: Ledger, source: FlakySource, lease: Lease, patience: float
) -> None:
    source.away.set()
    heard = Heard()
    outbox = Outbox(source, lease, heard.listener, patience)
    outbox.tell(partial(source.running, lease, 1, {}))
    until(lambda: source.refused > 3, "a ledger that is away is waited for as long as the training runs")
    assert not outbox.is_over
    outbox.end(partial(decide, source, lease, Ending(Reason.COMPLETED), TERMS))
    with pytest.raises(UnreachableError, match="cannot be written down: the server is away") as caught:
        outbox.wait(10)
    assert f"`epochal run --resume {lease.job_id}`" in caught.value.hint
    assert heard.lost == []
    assert ledger.job(lease.job_id).state is JobState.STARTING


class StoreIsAway(LedgerSource):
    """A server that answers, and whose log store does not."""

    def append_log(self, lease: Lease, rank: int, offset: int, data: bytes) -> int:
        raise UnreachableError("the storage did not answer within 5 s")


def test_an_end_does_not_wait_for_ever_for_the_logs(tmp_path: Path, ledger: Ledger, lease: Lease) -> None:
    printed = tmp_path / "logs" / f"attempt-{lease.epoch}" / "rank-0.log"
    printed.parent.mkdir(parents=True)
    printed.write_text("the last words")
    with StoreIsAway.open(f"sqlite:///{tmp_path / 'ledger.db'}") as source:
        outbox = Outbox(source, lease, Heard().listener)
        source.running(lease, 1)
        outbox.tell(partial(LogShipper(source, lease, tmp_path).finish_by, time.monotonic() + 0.3))
        outbox.end(lambda: decide(source, lease, Ending(Reason.COMPLETED), TERMS))
        ended = outbox.wait(30)
    assert ended is not None
    assert ended.state is JobState.SUCCEEDED
    told = [event for event in ledger.events(lease.job_id) if event.kind == "logs_delayed"]
    assert len(told) == 1
    assert "the storage did not answer" in told[0].message
    assert str(printed.parent) in told[0].message
    assert list(unshipped(tmp_path)) == [lease.epoch], "housekeeping sends it"


def test_a_log_that_cannot_be_read_keeps_no_end_from_the_ledger(
    tmp_path: Path, ledger: LedgerSource, lease: Lease
) -> None:
    (unreadable := tmp_path / "logs" / f"attempt-{lease.epoch}" / "rank-0.log").mkdir(parents=True)
    outbox = Outbox(ledger, lease, Heard().listener)
    ledger.running(lease, 1)
    outbox.tell(partial(LogShipper(ledger, lease, tmp_path).finish_by, time.monotonic() + 30))
    outbox.end(lambda: decide(ledger, lease, Ending(Reason.COMPLETED), TERMS))
    ended = outbox.wait(30)
    assert ended is not None, "it was said to be lost, and would have been trained once more"
    assert ended.state is JobState.SUCCEEDED
    (told,) = [event.message for event in ledger.events(lease.job_id) if event.kind == "logs_delayed"]
    assert str(unreadable.parent) in told
