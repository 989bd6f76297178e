"""The reconciler's quick part, on a real ledger: what it does about leases and waiting jobs, and when it waits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Lease
from epochal.server.reconciler import Finding, Reconciler, Timing
from polling import until

QUICK = Timing(tick=0.02, catch_up=0.05, lease=0.2, late=60.0)
PATIENT = Timing(lease=60.0)
TTL = 0.05


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


@pytest.fixture
def reconciler(ledger: Ledger) -> Reconciler:
    return Reconciler(ledger, None, timing=QUICK)


def running(ledger: Ledger, ttl: float = TTL) -> Lease:
    job = ledger.submit({"version": 1}, name="digits-cnn")
    lease = ledger.lease("agent/1", ttl, job.id)
    assert lease is not None
    ledger.running(lease, world_size=2)
    return lease


def tick_until_queued(reconciler: Reconciler, ledger: Ledger, *leases: Lease) -> None:
    def ticked() -> bool:
        reconciler.tick()
        return all(state(ledger, lease) is JobState.QUEUED for lease in leases)

    until(ticked, "the leases have ended")


def state(ledger: Ledger, lease: Lease) -> JobState:
    return ledger.job(lease.job_id).state


def test_a_lease_that_was_not_renewed_for_a_whole_lease_time_ends(ledger: Ledger, reconciler: Reconciler) -> None:
    lease = running(ledger)
    tick_until_queued(reconciler, ledger, lease)
    assert ledger.job(lease.job_id).reason is Reason.INTERRUPTED
    assert reconciler.counts.done == {"lease": 1}


def test_no_lease_ends_just_after_the_server_has_started(ledger: Ledger) -> None:
    lease = running(ledger)
    time.sleep(2 * TTL)
    reconciler = Reconciler(ledger, None, timing=PATIENT)
    for _ in range(3):
        reconciler.tick()
    assert [job.id for job in ledger.overdue()] == [lease.job_id]
    assert state(ledger, lease) is JobState.RUNNING


def test_no_lease_ends_just_after_the_server_was_stopped_or_asleep(ledger: Ledger) -> None:
    reconciler = Reconciler(ledger, None, timing=Timing(lease=1.0, late=1.0))
    tick_until_queued(reconciler, ledger, running(ledger))
    lease = running(ledger)
    time.sleep(1.2)
    reconciler.tick()
    assert state(ledger, lease) is JobState.RUNNING
    tick_until_queued(reconciler, ledger, lease)


def test_no_lease_ends_just_after_the_database_was_away(
    ledger: Ledger, reconciler: Reconciler, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tick_until_queued(reconciler, ledger, running(ledger))
    lease = running(ledger)
    time.sleep(2 * TTL)
    caplog.set_level(logging.WARNING, "epochal")
    with database_away(ledger, tmp_path / "ledger.db"):
        for _ in range(3):
            reconciler.tick()
    reconciler.tick()
    assert state(ledger, lease) is JobState.RUNNING
    assert [record.message.split(" ")[2:5] for record in caplog.records] == [
        ["leases", "failed,", "and"],
        ["queue", "failed,", "and"],
        ["leases", "work", "again"],
        ["queue", "work", "again"],
    ]
    assert reconciler.counts.errors == {"leases": 3, "queue": 3}
    tick_until_queued(reconciler, ledger, lease)


@contextmanager
def database_away(ledger: Ledger, database: Path) -> Iterator[None]:
    away = database.with_name("away.db")
    ledger.close()
    database.rename(away)
    database.mkdir()  # cannot be opened
    yield
    ledger.close()
    database.rmdir()
    away.rename(database)


def test_a_job_that_waits_longer_than_it_may_fails(ledger: Ledger, reconciler: Reconciler) -> None:
    impatient = ledger.submit({"version": 1, "limits": {"max_pending": "0.1s"}}, name="impatient")
    patient = ledger.submit({"version": 1, "limits": {"max_pending": "1h"}}, name="patient")
    time.sleep(0.15)
    assert reconciler.plan() == [Finding("max_pending", impatient.id, "it waited too long")]
    reconciler.tick()
    job = ledger.job(impatient.id)
    assert (job.state, job.reason) == (JobState.FAILED, Reason.PENDING_TIMEOUT)
    assert ledger.job(patient.id).state is JobState.QUEUED
    assert reconciler.counts.done == {"max_pending": 1}


def test_the_plan_names_what_would_be_done_and_does_nothing(ledger: Ledger, reconciler: Reconciler) -> None:
    lease = running(ledger, ttl=60)
    assert reconciler.plan() == []
    ledger.renew(lease, TTL)
    time.sleep(2 * TTL)
    assert reconciler.plan() == [Finding("lease", lease.job_id, "agent/1 did not renew its lease")]
    assert state(ledger, lease) is JobState.RUNNING


def test_it_runs_by_itself_until_it_is_stopped(ledger: Ledger, reconciler: Reconciler) -> None:
    lease = running(ledger)
    stop = threading.Event()
    thread = threading.Thread(target=reconciler.run, args=(stop,))
    thread.start()
    try:
        until(lambda: state(ledger, lease) is JobState.QUEUED, "the lease has ended")
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()
    assert reconciler.counts.catch_ups > 0


def test_two_servers_end_a_lease_once(ledger: Ledger) -> None:
    leases = [running(ledger) for _ in range(10)]
    both = [Reconciler(ledger, None, timing=QUICK) for _ in range(2)]
    threads = [threading.Thread(target=tick_until_queued, args=(one, ledger, *leases)) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.counts.done["lease"] for one in both) == len(leases)
    assert not sum(sum(one.counts.errors.values()) for one in both)
    assert {len(ledger.attempts(lease.job_id)) for lease in leases} == {1}


def test_an_error_that_nobody_foresaw_does_not_end_the_thread_that_looks_after_runs(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/not/there")
    reconciler = Reconciler(ledger, "https://127.0.0.1:9", timing=QUICK)
    reconciler.catch_up()
    assert reconciler.counts.errors == {"runs": 1}
