"""The states' table: complete, and the only way a job can change."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from epochal.errors import ConflictError
from epochal.ledger.database import Database
from epochal.ledger.ledger import Ledger
from epochal.ledger.schema import prepare
from epochal.ledger.states import ACTIVE, EDGES, EventKind, JobKind, JobState, Outcome, Reason, stronger
from epochal.ledger.transitions import Step, advance

TERMINAL = {JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED}
PAIRS = [(source, target) for source in JobState for target in JobState]


def path_to(target: JobState) -> list[JobState]:
    """States from QUEUED to ``target`` over legal edges."""
    paths, seen = [[JobState.QUEUED]], {JobState.QUEUED}
    for path in paths:
        if path[-1] is target:
            return path
        following = sorted(EDGES[path[-1]] - seen)
        seen.update(following)
        paths.extend([*path, state] for state in following)
    raise AssertionError(f"nothing leads to {target}")


def test_table_names_every_state() -> None:
    assert set(EDGES) == set(JobState)


def test_terminal_states_are_final_and_no_others() -> None:
    assert {state for state in JobState if state.is_terminal} == TERMINAL
    assert all(EDGES[state] for state in JobState if state not in TERMINAL)


def test_no_state_becomes_itself() -> None:
    assert all(state not in EDGES[state] for state in JobState)


def test_attempts_begin_in_one_way_only() -> None:
    """Only QUEUED leads into the states that hold a lease, so that every attempt has an epoch of its own."""
    into = {source for source in JobState if source not in ACTIVE for target in EDGES[source] if target in ACTIVE}
    assert into == {JobState.QUEUED}
    assert EDGES[JobState.QUEUED] & ACTIVE == {JobState.STARTING}


def test_every_state_can_be_reached_and_left() -> None:
    for state in JobState:
        assert all(two in EDGES[one] for one, two in pairwise(path_to(state)))
        assert state.is_terminal or any(path_end.is_terminal for path_end in EDGES[state] | {JobState.STOPPED})


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    database = Database("sqlite://")
    prepare(database)
    yield database
    database.close()


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=str)
def test_database_takes_legal_edges_only(database: Database, source: JobState, target: JobState) -> None:
    ledger = Ledger(database)
    job = ledger.job(ledger.submit({}, name="digits").id)
    with database.write() as connection:
        for state in path_to(source)[1:]:
            job = advance(connection, job, Step(EventKind.WAITING, state))
    if target in EDGES[source]:
        with database.write() as connection:
            assert advance(connection, job, Step(EventKind.WAITING, target)).state is target
    else:
        with pytest.raises(ConflictError, match="cannot become"), database.write() as connection:
            advance(connection, job, Step(EventKind.WAITING, target))
        assert ledger.job(job.id) == job


@pytest.mark.parametrize("source", JobState, ids=str)
def test_sweep_alone_is_queued_again_from_its_end(source: JobState) -> None:
    assert source.can_become(JobState.QUEUED, JobKind.SWEEP) == (
        source.is_terminal or source.can_become(JobState.QUEUED, JobKind.TRAIN)
    )
    assert not any(source.can_become(target, JobKind.SWEEP) for target in set(JobState) - EDGES[source] - {"QUEUED"})


def test_change_of_what_someone_else_changed_is_refused() -> None:
    database = Database("sqlite://")
    prepare(database)
    ledger = Ledger(database)
    job = ledger.submit({}, name="digits")
    ledger.lease("agent", 60)
    with pytest.raises(ConflictError, match="changed by someone else"), database.write() as connection:
        advance(connection, job, Step(EventKind.WAITING, JobState.STOPPED))
    assert [event.kind for event in ledger.events(job.id)] == ["submitted", "leased"]
    ledger.close()


def test_every_reason_has_an_outcome() -> None:
    outcomes = {reason: Outcome.of(reason) for reason in Reason}
    assert set(outcomes.values()) == set(Outcome)
    assert [reason for reason, outcome in outcomes.items() if outcome is Outcome.SUCCEEDED] == [Reason.COMPLETED]


def test_stop_overrules_pause_overrules_queue() -> None:
    queued, paused, stopped = JobState.QUEUED, JobState.PAUSED, JobState.STOPPED
    assert stronger(queued, paused) is stronger(paused, queued) is paused
    assert stronger(stopped, paused) is stronger(queued, stopped) is stopped
