"""What of a ledger goes by its age, on every database."""

from __future__ import annotations

import pytest
from ledger_steps import running, submit

from epochal.errors import NotFoundError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Job

DAY = 86_400.0


def ended(ledger: Ledger) -> Job:
    return ledger.finish(running(ledger), JobState.SUCCEEDED, Reason.COMPLETED)


@pytest.fixture
def going_on(ledger: Ledger) -> list[Job]:
    """Queued, paused and running."""
    return [submit(ledger, key="kept"), ledger.pause(running(ledger)), ledger.job(running(ledger).job_id)]


def test_nothing_young_goes(ledger: Ledger, going_on: list[Job]) -> None:
    job = ended(ledger)
    assert list(ledger.prune(DAY, DAY)) == []
    assert list(ledger.prune(None, None)) == []
    assert len(ledger.events(job.id)) == 4
    assert ledger.full_job(job.id).spec


def test_of_old_events_the_last_is_kept(ledger: Ledger, going_on: list[Job]) -> None:
    over = [ended(ledger), ended(ledger)]
    (said,) = ledger.prune(0, None)
    assert over[0].id in said
    assert [[event.kind for event in ledger.events(job.id)] for job in over] == [["succeeded"], ["succeeded"]]
    assert [len(ledger.events(job.id)) for job in going_on] == [1, 4, 3]
    assert list(ledger.prune(0, None)) == []


def test_old_jobs_go_with_all_that_is_known_of_them(ledger: Ledger, going_on: list[Job]) -> None:
    again = ledger.submit({"version": 1}, name="keyed", key="k")
    ledger.request_stop(again.id)
    over = [ended(ledger) for _ in range(3)]
    (said,) = ledger.prune(None, 0)
    assert said == f"ledger's record of {again.id} and 3 more jobs"
    for job in over:
        with pytest.raises(NotFoundError):
            ledger.job(job.id)
        assert (ledger.attempts(job.id), ledger.events(job.id)) == ([], [])
    assert {job.id for job in ledger.jobs()} == {job.id for job in going_on}
    assert ledger.submit({"version": 2}, name="keyed", key="k").id != again.id, "the key is free"


def test_many_go_in_several_transactions(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epochal.ledger.retention._BATCH", 2)
    for _ in range(5):
        ended(ledger)
    assert len(list(ledger.prune(None, 0))) == 3
    assert ledger.jobs() == []


def test_tokens_that_are_worthless_and_agents_that_are_gone(ledger: Ledger) -> None:
    kept, _ = ledger.create_token("ada", "user")
    revoked, _ = ledger.create_token("ada", "user")
    ledger.revoke_token(revoked.id)
    ledger.heartbeat("gone", "1", [], [], {})
    assert list(ledger.prune(None, 0)) == ["agents not heard of (1)", "worthless tokens (1)"]
    assert list(ledger.prune(None, 0)) == []
    assert [token.id for token in ledger.tokens()] == [kept.id]
    assert ledger.agents() == []
