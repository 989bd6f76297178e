"""What whoever watches a ledger asks of it every few seconds: how jobs stand, and which attempts have ended."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from sqlalchemy import func, select

from epochal.ledger.agents import all_agents
from epochal.ledger.database import Database
from epochal.ledger.maintenance import newest_events
from epochal.ledger.states import ACTIVE, JobKind, JobState, Outcome, Reason
from epochal.ledger.tables import attempts, events, jobs, now
from epochal.ledger.transitions import count_by_state, to_attempt, to_job
from epochal.ledger.values import AgentInfo, Attempt, Job


@dataclass(frozen=True)
class HeldJob:
    """A job that an agent holds, and its live attempt."""

    job: Job
    attempt: Attempt


@dataclass(frozen=True)
class Ended:
    """An attempt that has ended. ``lost_seconds``: of its workers together, training that nobody can go on from."""

    outcome: Outcome
    reason: Reason
    lost_seconds: float


@dataclass(frozen=True)
class Snapshot:
    """How a ledger stands. ``at``: by the database's clock. ``oldest_seconds``: the longest wait in the queue."""

    at: float
    counts: dict[JobState, int]
    oldest_seconds: float
    held: tuple[HeldJob, ...]
    agents: tuple[AgentInfo, ...]


class Monitoring:
    """What monitoring asks."""

    _database: Database

    def snapshot(self) -> Snapshot:
        waited = func.max(jobs.c.waited_seconds - jobs.c.entered_at) + now()
        live = select(attempts).join(jobs, (jobs.c.id == attempts.c.job_id) & (jobs.c.epoch == attempts.c.epoch))
        with self._database.read() as connection:
            at = float(connection.execute(select(now())).scalar_one())
            oldest = connection.scalar(select(waited).where(jobs.c.state == JobState.QUEUED)) or 0.0
            active = {row.id: to_job(row) for row in connection.execute(select(jobs).where(jobs.c.state.in_(ACTIVE)))}
            held = [to_attempt(row) for row in connection.execute(live.where(jobs.c.state.in_(ACTIVE)))]
            return Snapshot(
                at=at,
                counts=count_by_state(connection),
                oldest_seconds=max(0.0, float(oldest)),
                # One that has ended between the two questions is left out.
                held=tuple(HeldJob(active[one.job_id], one) for one in held if one.job_id in active),
                agents=tuple(all_agents(connection)),
            )

    def ended_attempts(self, seen: Set[int] | None) -> tuple[frozenset[int], list[Ended]]:
        """The attempts that have ended since the look that saw the events ``seen``, for the next look, and how.

        Without ``seen`` none: this is where counting begins.
        """
        its_attempt = (attempts.c.job_id == events.c.job_id) & (attempts.c.epoch == events.c.epoch)
        over = events.c.previous.in_(ACTIVE) & events.c.state.not_in(ACTIVE) & attempts.c.ended_at.is_not(None)
        query = select(attempts, jobs.c.kind).join(events, its_attempt).join(jobs, jobs.c.id == attempts.c.job_id)
        query = query.where(over)
        with self._database.read() as connection:
            found = newest_events(connection)
            if seen is None or not (unseen := found - seen):
                return found, []
            # All later ones, where more happened than the newest tell of.
            later = events.c.id.in_(unseen) | (events.c.id.between(max(seen, default=0) + 1, min(unseen)))
            return found, [_ended(to_attempt(row), row.kind) for row in connection.execute(query.where(later))]


def _ended(attempt: Attempt, kind: str) -> Ended:
    """A sweep's trials save for themselves: what it loses is not known, and not counted."""
    outcome, reason = attempt.outcome or Outcome.FAILED, attempt.reason or Reason.COMPLETED
    lost = 0.0
    failed = outcome in (Outcome.FAILED, Outcome.INTERRUPTED)
    if failed and kind != JobKind.SWEEP and attempt.started_at and attempt.ended_at:
        kept = max(attempt.started_at, attempt.checkpoint_at or 0.0)
        lost = max(0.0, attempt.ended_at - kept) * (attempt.world_size or 0)
    return Ended(outcome, reason, lost)
