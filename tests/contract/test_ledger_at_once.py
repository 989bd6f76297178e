"""Many threads and processes on one ledger at the same moment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from epochal.errors import ConflictError, StaleLeaseError
from epochal.ledger.database import Database
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import EDGES, EventKind, JobState, Reason
from epochal.ledger.tables import attempts

SPEC = {"version": 1}

LEASE_ALL = """
import json, sys
from epochal.ledger.ledger import Ledger
ledger = Ledger.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
taken = []
while lease := ledger.lease(sys.argv[2], 60):
    taken.append(lease.job_id)
print(json.dumps(taken))
"""

DIE_BETWEEN_TWO_WRITES = """
import os, signal, sys
from epochal.ledger import lease_operations
from epochal.ledger.ledger import Ledger
ledger = Ledger.open(sys.argv[1])
lease = ledger.lease("dying", 60)
lease_operations.end_attempt = lambda *ignored: os.kill(os.getpid(), signal.SIGKILL)
ledger.retry(lease, "INFRASTRUCTURE")
"""

OPEN = "import sys; from epochal.ledger.ledger import Ledger; Ledger.open(sys.argv[1]).submit({}, name='n')"


def at_once(count: int, call: Callable[[int], Any]) -> list[Any]:
    """The results, or errors, of ``call(0 .. count - 1)``, all begun at the same moment."""
    barrier = Barrier(count)

    def one(number: int) -> Any:
        barrier.wait()
        try:
            return call(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_same_key_from_twenty_threads_is_one_job(ledger: Ledger) -> None:
    jobs = at_once(20, lambda _: ledger.submit(SPEC, name="digits", key="k"))
    assert len({job.id for job in jobs}) == 1
    assert len(ledger.jobs()) == 1
    assert [event.kind for event in ledger.events(jobs[0].id)] == ["submitted"]


def test_same_name_from_twenty_threads_is_twenty_jobs(ledger: Ledger) -> None:
    jobs = at_once(20, lambda _: ledger.submit(SPEC, name="digits"))
    assert len({job.id for job in jobs}) == 20


def test_threads_never_lease_the_same_job(ledger: Ledger) -> None:
    submitted = {ledger.submit(SPEC, name="digits").id for _ in range(30)}

    def lease_all(number: int) -> list[str]:
        return [lease.job_id for lease in iter(lambda: ledger.lease(f"agent-{number}", 60), None)]

    taken = Counter(job_id for ids in at_once(8, lease_all) for job_id in ids)
    assert set(taken) == submitted
    assert set(taken.values()) == {1}


def test_processes_never_lease_the_same_job(ledger: Ledger, ledger_url: str) -> None:
    submitted = {ledger.submit(SPEC, name="digits").id for _ in range(60)}
    command = [sys.executable, "-c", LEASE_ALL, ledger_url]
    agents = [
        subprocess.Popen([*command, f"agent-{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    for agent in agents:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "ready\n"
    for agent in agents:
        assert agent.stdin is not None
        agent.stdin.write("go\n")
        agent.stdin.flush()
    taken = Counter(job_id for agent in agents for job_id in json.loads(agent.communicate()[0]))
    assert set(taken) == submitted
    assert set(taken.values()) == {1}


def test_only_one_of_many_endings_counts(ledger: Ledger) -> None:
    for _ in range(5):
        job = ledger.submit(SPEC, name="digits")
        lease = ledger.lease("agent-1", 0, job.id)
        assert lease is not None
        ledger.running(lease, world_size=1)
        endings = [
            lambda lease=lease: ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED),
            lambda lease=lease: ledger.finish(lease, JobState.FAILED, Reason.USER_ERROR),
            lambda lease=lease: ledger.retry(lease, Reason.INFRASTRUCTURE),
            lambda: ledger.expire(JobState.PAUSED),
            lambda job=job: ledger.request_stop(job.id),
        ]
        results = at_once(len(endings), lambda number, endings=endings: endings[number]())
        unexpected = [r for r in results if isinstance(r, Exception) and not isinstance(r, ConflictError)]
        assert not unexpected
        changes = [event for event in ledger.events(job.id) if event.previous is not event.state]
        ended = [
            event for event in changes if event.previous and event.previous.is_active and not event.state.is_active
        ]
        assert len(ended) == 1
        assert all(one.state is two.previous for one, two in pairwise(changes))
        assert all(event.state in EDGES[event.previous] for event in changes if event.previous)


def test_renewing_and_expiring_at_once_has_one_winner(ledger: Ledger) -> None:
    for _ in range(10):
        job = ledger.submit(SPEC, name="digits")
        lease = ledger.lease("agent-1", 0, job.id)
        assert lease is not None
        renewed, expired = at_once(
            2, lambda number, lease=lease: ledger.expire() if number else ledger.renew(lease, 60)
        )
        lost = isinstance(renewed, StaleLeaseError)
        assert lost is bool(expired)
        assert ledger.job(job.id).state is (JobState.QUEUED if lost else JobState.STARTING)
        ledger.request_stop(job.id)


def test_events_of_a_job_are_numbered_in_their_order(ledger: Ledger) -> None:
    """A reader that goes on after the newest id misses nothing."""
    job = ledger.submit(SPEC, name="digits")
    seen: list[int] = []

    def note_or_read(number: int) -> None:
        for _ in range(20):
            if number:
                ledger.note(job.id, EventKind.WAITING)
            else:
                seen.extend(event.id for event in ledger.events(job.id, after=seen[-1] if seen else 0))

    assert at_once(5, note_or_read) == [None] * 5
    seen.extend(event.id for event in ledger.events(job.id, after=seen[-1]))
    assert seen == [event.id for event in ledger.events(job.id)]
    assert len(seen) == 81


def test_database_itself_refuses_a_second_live_attempt(ledger: Ledger, ledger_url: str) -> None:
    job = ledger.submit(SPEC, name="digits")
    ledger.lease("agent-1", 60)
    database = Database(ledger_url)
    second = {"job_id": job.id, "epoch": 2, "agent": "agent-2", "leased_at": 0.0, "message": "", "detail": {}}
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(insert(attempts).values(second))
    database.close()


def test_kill_in_the_middle_of_a_change_leaves_what_was_before(ledger: Ledger, ledger_url: str) -> None:
    job = ledger.submit(SPEC, name="digits")
    died = subprocess.run([sys.executable, "-c", DIE_BETWEEN_TWO_WRITES, ledger_url], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert ledger.job(job.id).state is JobState.STARTING
    assert [event.kind for event in ledger.events(job.id)] == ["submitted", "leased"]
    (attempt,) = ledger.expire(dead_agents=["dying"])
    assert attempt.epoch == 1
    again = ledger.lease("agent-1", 60)
    assert again is not None
    assert again.epoch == 2


def test_many_processes_may_open_a_new_ledger_at_once(new_ledger_url: Callable[[], str]) -> None:
    url = new_ledger_url()
    openers = [subprocess.Popen([sys.executable, "-c", OPEN, url], stderr=subprocess.PIPE, text=True) for _ in range(6)]
    errors = [opener.communicate(timeout=60)[1] for opener in openers]
    assert [opener.returncode for opener in openers] == [0] * 6, errors
    with Ledger.open(url) as ledger:
        assert len(ledger.jobs()) == 6
