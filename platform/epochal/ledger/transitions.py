"""Every change of a job: one conditional UPDATE on (state, epoch) and one event, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cache, partial
from typing import Any, TypeVar, get_args, get_type_hints

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, case, func, insert, select, update

from epochal.errors import ConflictError
from epochal.ledger.documents import text
from epochal.ledger.states import ACTIVE, PENDING, EventKind, JobState, Outcome, Reason, stronger
from epochal.ledger.tables import attempts, documents, events, jobs, now
from epochal.ledger.values import Attempt, Event, FullJob, Job

_DOCUMENTS = (documents.c.spec, documents.c.origin, documents.c.data)
FULL = select(*jobs.c, *_DOCUMENTS).join(documents, documents.c.job_id == jobs.c.id)
"""Jobs with their documents."""
_FULL_OF = FULL.where(jobs.c.id == bindparam("this"))


@dataclass(frozen=True)
class Step:
    """A change to make: the state to reach (None: it stays), and what to say about it."""

    kind: EventKind
    state: JobState | None = None
    reason: Reason | None = None
    message: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    wanted: JobState | None = None
    grace: float | None = None
    key: str | None = None
    """Of what is recorded once, however often it is told."""


Value = TypeVar("Value")


@cache
def _fields(kind: type[Any]) -> dict[str, type[StrEnum] | None]:
    """The fields of a value, those that hold a word with the enum that it is of."""
    hints = get_type_hints(kind)
    possible = {one.name: (hints[one.name], *get_args(hints[one.name])) for one in fields(kind)}
    return {
        name: next((one for one in types if isinstance(one, type) and issubclass(one, StrEnum)), None)
        for name, types in possible.items()
    }


def from_row(kind: type[Value], row: Row[*tuple[Any, ...]]) -> Value:
    """The value of that ``kind`` that a row holds, perhaps among other columns."""
    known = _fields(kind)  # type: ignore[arg-type]  # classes are hashable
    stored = ((name, value) for name, value in row._mapping.items() if name in known)
    return kind(**{name: word(value) if (word := known[name]) and value else value for name, value in stored})


to_job = partial(from_row, Job)
to_full_job = partial(from_row, FullJob)
"""Of a row of ``FULL``."""
to_attempt = partial(from_row, Attempt)
to_event = partial(from_row, Event)


def full(connection: Connection, job: Job) -> FullJob:
    """The same with its documents."""
    return to_full_job(connection.execute(_FULL_OF, {"this": job.id}).one())


def locked(connection: Connection, query: Select[Any]) -> Job | None:
    """The first job of ``query``, which nobody else changes before this transaction ends."""
    # On SQLite the whole database is locked since BEGIN IMMEDIATE, and FOR UPDATE is left out.
    row = connection.execute(query.with_for_update()).first()
    return to_job(row) if row else None


def advance(connection: Connection, job: Job, step: Step, **columns: Any) -> Job:
    """Bring ``job`` to ``step.state``, and its bookkeeping with it.

    Raises:
        ConflictError: the states' table does not allow it, or the job changed since it was read.
    """
    target = step.state or job.state
    if not job.state.can_become(target, job.kind):
        raise ConflictError(f"{job.id} is {job.state}: it cannot become {target}")
    values = {
        "state": target.value,
        "reason": step.reason,
        "message": text(step.message),
        "wanted": step.wanted,
        "grace": step.grace,
        **BOOKKEEPING,
        **({} if target.is_active else {"owner": None, "expires_at": None, "granted": None, "granted_at": None}),
        **({"ended_at": now()} if target.is_terminal else {}),
    }
    return _changed(connection, job, step, values | columns)


def annotate(connection: Connection, job: Job, step: Step, **columns: Any) -> Job:
    """Record something about ``job`` that leaves its state as it is."""
    return _changed(connection, job, step, columns)


def end_attempt(connection: Connection, job: Job, reason: Reason, message: str) -> None:
    """End the live attempt of ``job``, at the time of the job's newest change."""
    live = (attempts.c.job_id == job.id) & (attempts.c.epoch == job.epoch) & attempts.c.ended_at.is_(None)
    ending = {"ended_at": job.updated_at, "outcome": Outcome.of(reason), "reason": reason, "message": text(message)}
    connection.execute(update(attempts).where(live).values(ending))


def obedient(job: Job, step: Step) -> Step:
    """``step``, unless the job was asked to become something stronger: then that, for the reason it was asked."""
    target = step.state or job.state
    if job.wanted is None or stronger(job.wanted, target) is target:
        return step
    return Step(step.kind, job.wanted, job.reason, step.message)


def record(connection: Connection, job: Job, previous: JobState | None, step: Step) -> None:
    """Append the event of a change: ``job`` is as it is now, ``previous`` the state it was in."""
    event = {
        "job_id": job.id,
        "epoch": job.epoch,
        "at": job.updated_at,
        "kind": step.kind,
        "previous": previous,
        "state": job.state,
        "reason": step.reason,
        "message": text(step.message),
        "detail": step.detail,
        "key": step.key,
    }
    connection.execute(insert(events), event)


def _changed(connection: Connection, job: Job, step: Step, values: Mapping[str, Any]) -> Job:
    """The conditional UPDATE, which also takes the row's lock, so that a job's events are numbered in their order."""
    terms = {name: value for name, value in values.items() if isinstance(value, ColumnElement)}
    plain = {name: value for name, value in values.items() if name not in terms}
    this = {"this": job.id, "was": job.state, "attempt": job.epoch}
    row = connection.execute(_CHANGE.values(terms) if terms else _CHANGE, {**plain, **this}).first()
    if row is None:
        raise ConflictError(f"{job.id} was changed by someone else", "try again")
    changed = to_job(row)
    record(connection, changed, job.state, step)
    return changed


def _time_in(here: ColumnElement[bool]) -> ColumnElement[float]:
    """Seconds since the job came into its state, where ``here``; never below zero, as clocks can be set back."""
    spent = now() - jobs.c.entered_at
    return case((and_(here, spent > 0), spent), else_=0.0)


BOOKKEEPING: dict[str, ColumnElement[float]] = {
    "entered_at": now(),
    "updated_at": now(),
    "waited_seconds": jobs.c.waited_seconds + _time_in(jobs.c.state.in_(PENDING)),
    "ran_seconds": jobs.c.ran_seconds + _time_in(and_(jobs.c.state.in_(ACTIVE), jobs.c.started_at.is_not(None))),
}
"""The columns that every change of state brings up to date."""

_UNCHANGED = (jobs.c.id == bindparam("this"), jobs.c.state == bindparam("was"), jobs.c.epoch == bindparam("attempt"))
_CHANGE = update(jobs).where(*_UNCHANGED).values(updated_at=now()).returning(jobs)


def count_by_state(connection: Connection) -> dict[JobState, int]:
    found = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state))
    counts = {JobState(state): count for state, count in found}
    return {state: counts.get(state, 0) for state in JobState}
