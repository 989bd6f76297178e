"""Sweeps in the ledger: what the controller was told, its trials, and what users ask of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, case, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from epochal.errors import ConflictError, NotFoundError, Problem, SpecError, StaleLeaseError
from epochal.ledger.database import Database
from epochal.ledger.documents import digest, text
from epochal.ledger.ids import submission_key
from epochal.ledger.lease_operations import held_by, something_is_saved
from epochal.ledger.reading import find, find_locked
from epochal.ledger.states import EventKind, JobKind, JobState
from epochal.ledger.sweep_requests import extended, to_request
from epochal.ledger.sweep_values import NewInput, StoredInput, SweepRequest, TrialRecord, asked
from epochal.ledger.tables import inputs, jobs, now, requests, trials
from epochal.ledger.transitions import FULL, Step, annotate, to_full_job, to_job
from epochal.ledger.values import Held, Job
from epochal.spec.job import JobSpec
from epochal.sweeps.trials import TrialState

_OVER = [state for state in TrialState if state.is_over]
_TOLD = ("point", "state", "length", "until", "value", "metrics", "curve", "run_id", "reason", "message")


class SweepOperations:
    """What an agent and users tell of a sweep."""

    _database: Database

    def with_earlier_found(self, spec: JobSpec, key: str | None = None, submitted_by: str = "") -> JobSpec:
        """``spec`` with the id of the sweep that ``sweep.search.from`` names: its name may be another job's tomorrow.

        The same submission again, by its ``key``, means the sweep that it meant at first: the newest of that name may
        by now be the job that it has made itself.

        Raises:
            SpecError: there is none of that name.
        """
        sweep = spec.sweep
        if sweep is None or (named := sweep.search.earlier) is None:
            return spec
        try:
            with self._database.read() as connection:
                before = _earlier_of(connection, submission_key(submitted_by, key))
                as_then = before is not None and (before.name == named or before.id.startswith(named))
                job = before if before is not None and as_then else _required_sweep(find(connection, named))
        except (ConflictError, NotFoundError) as error:
            problem = Problem("sweep.search.from", error.message, value=named, hint=error.hint)
            raise SpecError("the job spec", (problem,)) from None
        search = sweep.search.model_copy(update={"from": job.id})
        return spec.model_copy(update={"sweep": sweep.model_copy(update={"search": search})})

    def append_inputs(
        self, lease: Held, after_seq: int, told: Sequence[NewInput], changed: Sequence[TrialRecord] = ()
    ) -> int:
        """Write down what the controller was told, and the trials that changed with it; the number of the newest input.

        The same batch told again, because its answer got lost, changes nothing.

        Args:
            after_seq: the newest input that the writer knows of; 0 before the first.

        Raises:
            StaleLeaseError: the attempt is over.
            ConflictError: the newest is another one, or the job is no sweep.
        """
        with self._database.write() as connection:
            job = _required_sweep(held_by(connection, lease))
            newest = connection.scalar(select(func.max(inputs.c.seq)).where(inputs.c.job_id == job.id)) or 0
            rows = [
                {"job_id": job.id, "seq": seq, "epoch": job.epoch, "key": one.key, "body": one.body}
                for seq, one in enumerate(told, start=after_seq + 1)
            ]
            if newest != after_seq:  # the answer got lost, or somebody else has written
                _require_told_before(connection, job, after_seq, rows, newest)
                return after_seq + len(rows)
            if rows:
                connection.execute(insert(inputs), rows)
            if any(one.body.get("kind") == "reached" for one in told):
                something_is_saved(connection, job)
            failed = _newly_failed(connection, job.id, changed)
            _upsert(connection, job.id, changed)
            for trial in failed:
                detail = {"trial": trial.number, "reason": trial.reason}
                message = f"trial {trial.number}: {trial.message}"
                job = annotate(connection, job, Step(EventKind.TRIAL_FAILED, message=message, detail=detail))
            return after_seq + len(rows)

    def set_trial_runs(self, lease: Held, run_ids: Mapping[int, str]) -> None:
        """The MLflow runs of trials, by their numbers. Those of the last are known only once the attempt has ended.

        Raises:
            StaleLeaseError: another attempt has begun, which tells of all of them.
            ConflictError: the job is no sweep.
        """
        with self._database.write() as connection:
            job = _required_sweep(find(connection, lease.job_id))
            if job.epoch != lease.epoch:
                raise StaleLeaseError(job.id, lease.epoch, job.epoch, job.state)
            this = trials.c.job_id == job.id, trials.c.number == bindparam("trial")
            rows = [{"trial": number, "run": run_id} for number, run_id in run_ids.items()]
            if rows:
                connection.execute(update(trials).where(*this).values(run_id=bindparam("run")), rows)

    def inputs(self, job_id: str, after: int = 0, limit: int | None = None) -> list[StoredInput]:
        """What the controller of a sweep was told, in order, from the one following the number ``after``."""
        query = select(inputs).where(inputs.c.job_id == job_id, inputs.c.seq > after)
        with self._database.read() as connection:
            found = connection.execute(query.order_by(inputs.c.seq).limit(limit))
            return [StoredInput(row.seq, row.epoch, row.body, row.key) for row in found]

    def trials(
        self, job_id: str, states: Collection[TrialState] = (), after: int = -1, limit: int | None = None
    ) -> list[TrialRecord]:
        """The trials of a sweep by number, from the one following the number ``after``."""
        query = select(trials).where(trials.c.job_id == job_id, trials.c.number > after)
        query = query.where(trials.c.state.in_(sorted(states))) if states else query
        with self._database.read() as connection:
            return [_to_trial(row) for row in connection.execute(query.order_by(trials.c.number).limit(limit))]

    def ask(self, ref: str, request: Mapping[str, Any], key: str, by: str = "") -> Job:
        """Ask for more trials, points or repetitions of a sweep, or for the end of a trial (``sweep_values.Ask``).

        Its agent hears of it within seconds. One that is queued or paused does it once it runs, and one that has ended
        is queued again. With a ``key`` that was used before, nothing is asked once more.

        Raises:
            UsageError: no such request.
            NotFoundError: it has no such trial.
            ConflictError: it is no sweep, is being stopped, the trial is over, or ``key`` belongs to another request.
        """
        ask = asked(request)
        with self._database.write() as connection:
            job = _required_sweep(find_locked(connection, ref))
            known = requests.c.job_id == job.id, requests.c.key == key
            if (row := connection.execute(select(requests).where(*known)).first()) is not None:
                if digest(row.body) != digest(request):
                    raise ConflictError(f"the key {key!r} belongs to another request of {job.id}", "use a new key")
                return job
            _require_possible(connection, job, ask.trial_number, ends_it=ask.kind == "cancel")
            seq = 1 + (connection.scalar(select(jobs.c.requested).where(jobs.c.id == job.id)) or 0)
            body = {"job_id": job.id, "seq": seq, "key": key, "body": request, "by": by}
            connection.execute(insert(requests).values(at=now()), body)
            detail = {"request": seq, "by": by, **request} if ask.kind != "add" else {"request": seq, "by": by}
            if job.state.is_terminal:
                step = Step(EventKind.EXTENDED, JobState.QUEUED, message=str(ask), detail=detail)
                return extended(connection, job, step, requested=seq)
            return annotate(connection, job, Step(EventKind.ASKED, message=str(ask), detail=detail), requested=seq)

    def requests(self, job_id: str, after: int = 0) -> list[SweepRequest]:
        """What was asked of a sweep, oldest first, from the one following the number ``after``."""
        query = select(requests).where(requests.c.job_id == job_id, requests.c.seq > after).order_by(requests.c.seq)
        with self._database.read() as connection:
            return [to_request(row) for row in connection.execute(query)]


def _earlier_of(connection: Connection, key: str | None) -> Job | None:
    """The sweep that a submission with this key has learnt from; None where there was none, or it is gone."""
    made = connection.execute(FULL.where(jobs.c.key == key)).first() if key is not None else None
    earlier = ((to_full_job(made).spec.get("sweep") or {}).get("search") or {}).get("from") if made else None
    row = connection.execute(select(jobs).where(jobs.c.id == earlier)).first() if earlier else None
    return to_job(row) if row else None


def _required_sweep(job: Job) -> Job:
    if job.kind is not JobKind.SWEEP:
        raise ConflictError(f"{job.id} is no sweep", "its spec has no `sweep` block")
    return job


def _require_told_before(
    connection: Connection, job: Job, after: int, rows: Sequence[Mapping[str, Any]], newest: int
) -> None:
    """
    Raises:
        ConflictError: this is not what is written there.
    """
    these = inputs.c.job_id == job.id, inputs.c.seq > after, inputs.c.seq <= after + len(rows)
    found = connection.execute(select(inputs.c.seq, inputs.c.key, inputs.c.body).where(*these)).all()
    known = {row.seq: (row.key, digest(row.body)) for row in found}
    if not rows or known != {row["seq"]: (row["key"], digest(row["body"])) for row in rows}:
        message = f"the newest input of {job.id} is {newest}, and what was told is to follow {after}"
        raise ConflictError(message, "read the inputs again: another writer was here")


def _require_possible(connection: Connection, job: Job, trial: int | None, ends_it: bool) -> None:
    if job.wanted is JobState.STOPPED:
        raise ConflictError(f"{job.id} is being stopped", "ask again once it is STOPPED: it is queued again then")
    if trial is None:
        return
    this = trials.c.job_id == job.id, trials.c.number == trial
    state = connection.scalar(select(trials.c.state).where(*this))
    if state is None:
        hint = f"`epochal sweep status {job.id}` lists its trials"
        raise NotFoundError(f"trial of {job.id}", str(trial), hint=hint)
    if ends_it and (state in _OVER or job.state.is_terminal):
        raise ConflictError(f"trial {trial} of {job.id} is over: {state}", "there is nothing to end")


def _newly_failed(connection: Connection, job_id: str, changed: Sequence[TrialRecord]) -> list[TrialRecord]:
    failed = {one.number: one for one in changed if one.state is TrialState.FAILED}
    if not failed:
        return []
    these = trials.c.job_id == job_id, trials.c.state == TrialState.FAILED, trials.c.number.in_(sorted(failed))
    known = set(connection.scalars(select(trials.c.number).where(*these)))
    return [one for number, one in failed.items() if number not in known]


def _upsert(connection: Connection, job_id: str, changed: Sequence[TrialRecord]) -> None:
    if not changed:
        return
    make = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    one = make(trials)
    told = {name: one.excluded[name] for name in _TOLD}
    kept = {
        "run_id": func.coalesce(one.excluded.run_id, trials.c.run_id),
        "started_at": func.coalesce(trials.c.started_at, one.excluded.started_at),
        "ended_at": case(
            (one.excluded.ended_at.is_(None), None), else_=func.coalesce(trials.c.ended_at, one.excluded.ended_at)
        ),
        "updated_at": one.excluded.updated_at,
    }
    # Every row of an INSERT has the same terms, so the time is asked for once.
    at = float(connection.execute(select(now())).scalar_one())
    rows = {record.number: _row(job_id, record, at) for record in changed}
    this = [trials.c.job_id, trials.c.number]
    connection.execute(one.on_conflict_do_update(index_elements=this, set_=told | kept), list(rows.values()))


def _row(job_id: str, record: TrialRecord, at: float) -> dict[str, Any]:
    told = {name: getattr(record, name) for name in ("number", *_TOLD)} | {"message": text(record.message)}
    started = None if record.state is TrialState.WAITING and record.value is None else at
    times = {"updated_at": at, "started_at": started, "ended_at": at if record.state.is_over else None}
    return {"job_id": job_id, **told, **times}


def _to_trial(row: Row[Any]) -> TrialRecord:
    values = {name: value for name, value in row._mapping.items() if name != "job_id"}
    values["state"] = TrialState(values["state"])
    values["value"] = None if row.value is None else float(row.value)
    values["metrics"] = {name: float(value) for name, value in row.metrics.items()}
    values["curve"] = tuple((float(length), float(value)) for length, value in row.curve)
    return TrialRecord(**values)
