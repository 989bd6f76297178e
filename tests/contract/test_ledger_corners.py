"""Moments between two states of a ledger, and values that compare with nothing, on every database."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ledger_steps import leased, running, submit
from sqlalchemy import text, update

from epochal.errors import UsageError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.ledger.tables import jobs


@pytest.fixture(scope="module")
def no_waiting_for_the_disk() -> None:
    """Here is looked at that a ledger waits for it."""


def test_a_gang_that_was_stopped_while_it_started_has_not_been_resized(ledger: Ledger) -> None:
    lease = leased(ledger)
    ledger.request_stop(lease.job_id)
    assert ledger.running(lease, world_size=2).state is JobState.STOPPING
    assert EventKind.RESIZED not in [event.kind for event in ledger.events(lease.job_id)]
    assert ledger.attempts(lease.job_id)[-1].world_size == 2
    ledger.running(lease, world_size=1)
    assert ledger.events(lease.job_id)[-1].message == "2 -> 1"


def test_whoever_has_seen_an_empty_ledger_has_missed_more_than_the_newest_events(ledger: Ledger) -> None:
    seen = ledger.news(None).seen
    assert not ledger.news(seen).missed
    job = submit(ledger)
    assert not ledger.news(seen).missed
    for _ in range(300):
        ledger.note(job, EventKind.WAITING)
    assert ledger.news(seen).missed


def test_a_quota_is_a_number(ledger: Ledger) -> None:
    with pytest.raises(UsageError):
        ledger.set_quota("user", "anna", cpus=math.nan)
    assert ledger.quotas() == []


def test_a_job_that_goes_on_while_old_ones_are_deleted_is_kept(ledger: Ledger) -> None:
    over = [ledger.finish(running(ledger), JobState.SUCCEEDED, Reason.COMPLETED) for _ in range(2)]
    if ledger._database.is_sqlite:
        pytest.skip("who writes to SQLite is alone")
    with ThreadPoolExecutor(1) as threads:
        with ledger._database.write() as connection:
            connection.execute(update(jobs).where(jobs.c.id == over[0].id).values(state=JobState.QUEUED))
            said = list(threads.submit(list, ledger.prune(None, 0)).result(timeout=30))
        assert len(said) == 1
    assert [job.id for job in ledger.jobs()] == [over[0].id]


def test_sqlite_is_set_up_to_keep_what_it_accepted(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger, ledger._database.read() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 15_000}
