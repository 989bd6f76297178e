"""What the ledger holds, as frozen values. No database here: a thin client can use them.

Times are seconds since 1970 UTC by the database's clock; ``to_dict`` writes them as ISO 8601.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from epochal.ledger.states import JobState, Outcome, Reason


def iso(seconds: float) -> str:
    """
    >>> iso(0.5)
    '1970-01-01T00:00:00.500Z'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Value:
    """A frozen dataclass that can be printed as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types only; fields named ``*_at`` become ISO 8601 text."""
        return {field.name: _plain(field.name, getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, _Value):
        return value.to_dict()
    if isinstance(value, JobState | Reason | Outcome):
        return value.value
    if name.endswith("_at") and value is not None:
        return iso(value)
    if name.endswith("_seconds"):
        return round(value, 3)
    return dict(value) if isinstance(value, Mapping) else value


@dataclass(frozen=True)
class Job(_Value):
    """What was submitted, and where it is."""

    id: str
    number: int
    """Order of arrival in this ledger."""
    name: str
    key: str | None
    """The client's idempotency key."""
    spec: Mapping[str, Any]
    spec_digest: str
    priority: int
    submitted_by: str
    origin: Mapping[str, Any]
    """What the submitter wrote down for whoever runs the job: its file, and where its data and its code are."""

    state: JobState
    reason: Reason | None
    """Why it is in this state, where there is something to say."""
    message: str
    wanted: JobState | None
    """While STOPPING: the state asked for (STOPPED, PAUSED, or QUEUED when it makes room)."""

    epoch: int
    """Number of the newest attempt; 0 before the first."""
    owner: str | None
    """The agent that holds the lease."""
    expires_at: float | None
    run_id: str | None
    tracking_uri: str | None
    progress: Mapping[str, Any] | None
    """The newest the agent told."""

    submitted_at: float
    entered_at: float
    """When it came into its state."""
    first_started_at: float | None
    started_at: float | None
    """When the newest attempt began to train."""
    ended_at: float | None
    updated_at: float
    waited_seconds: float
    ran_seconds: float

    def pending_seconds(self, now: float) -> float:
        """Time in QUEUED and STARTING over all attempts, until ``now`` (the database's clock: ``Ledger.now``)."""
        return self.waited_seconds + (self._here(now) if self.state.is_pending else 0.0)

    def running_seconds(self, now: float) -> float:
        """Time in which it trained, over all attempts, until ``now``."""
        trains = self.state.is_active and self.started_at is not None
        return self.ran_seconds + (self._here(now) if trains else 0.0)

    def _here(self, now: float) -> float:
        return max(0.0, now - self.entered_at)


@dataclass(frozen=True)
class Attempt(_Value):
    """One try at running a job. ``outcome`` is None while it is live."""

    job_id: str
    epoch: int
    agent: str
    leased_at: float
    started_at: float | None
    ended_at: float | None
    outcome: Outcome | None
    reason: Reason | None
    message: str
    world_size: int | None
    detail: Mapping[str, Any]


@dataclass(frozen=True)
class Event(_Value):
    """Something that happened to a job; never changed afterwards. ``id`` grows: ask for those after the last one seen.

    ``previous`` and ``state`` are equal where the state did not change; ``previous`` is None for the submission.
    """

    id: int
    job_id: str
    epoch: int
    at: float
    kind: str
    previous: JobState | None
    state: JobState
    reason: Reason | None
    message: str
    detail: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "at": iso(self.at)}


@dataclass(frozen=True)
class Lease(_Value):
    """An agent's right to run one job until ``expires_at``, as long as it renews it and nobody has a newer epoch."""

    job: Job
    epoch: int
    agent: str
    expires_at: float

    @property
    def job_id(self) -> str:
        return self.job.id
