"""What states a job can be in, which may follow which, and why one ended. No database here.

    QUEUED ──▶ STARTING ──▶ RUNNING ──▶ SUCCEEDED | FAILED
      ▲  │        │            │
      │  │        └────────────┴──▶ STOPPING ──▶ STOPPED
      │  └──▶ PAUSED ◀── (any active state)
      └────── PAUSED, and any active state: a new attempt

``EDGES`` is the whole truth; the drawing leaves out what would make it hard to read. A sweep alone has one more:
from each terminal state back to QUEUED, when its user asks for more trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class JobKind(StrEnum):
    """What a job does: its program."""

    TRAIN = "train"
    SWEEP = "sweep"


class JobState(StrEnum):
    """Where a job is. A terminal state is final, but for a sweep that is extended; an active one has a live attempt,
    held by an agent's lease."""

    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    PAUSED = "PAUSED"
    """Resumable: paused or interrupted by the user, or left behind by a process that died."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"

    @property
    def is_terminal(self) -> bool:
        return not EDGES[self]

    @property
    def is_active(self) -> bool:
        return self in ACTIVE

    @property
    def is_pending(self) -> bool:
        """Waiting to train: in the queue, or its gang is being formed."""
        return self in PENDING

    def can_become(self, target: JobState, kind: JobKind = JobKind.TRAIN) -> bool:
        is_extended = kind is JobKind.SWEEP and self.is_terminal and target is JobState.QUEUED
        return is_extended or target in EDGES[self]


_QUEUED, _STARTING, _RUNNING, _STOPPING, _PAUSED, _SUCCEEDED, _FAILED, _STOPPED = JobState

ACTIVE = frozenset({_STARTING, _RUNNING, _STOPPING})
PENDING = frozenset({_QUEUED, _STARTING})

EDGES: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        _QUEUED: frozenset({_STARTING, _PAUSED, _FAILED, _STOPPED}),
        _STARTING: frozenset({_RUNNING, _STOPPING, _QUEUED, _PAUSED, _FAILED}),
        _RUNNING: frozenset({_STOPPING, _QUEUED, _PAUSED, _SUCCEEDED, _FAILED}),
        _STOPPING: frozenset({_QUEUED, _PAUSED, _SUCCEEDED, _FAILED, _STOPPED}),
        _PAUSED: frozenset({_QUEUED, _STOPPED}),
        _SUCCEEDED: frozenset(),
        _FAILED: frozenset(),
        _STOPPED: frozenset(),
    }
)
"""Every legal change of a state, of a job of any kind. RUNNING never becomes STOPPED at once: a stop is asked for, then
carried out."""


_BY_STRENGTH = (_QUEUED, _PAUSED, _STOPPED)


def stronger(one: JobState, other: JobState) -> JobState:
    """Which of two requests counts: a stop overrules a pause, and both a return to the queue."""
    return max(one, other, key=_BY_STRENGTH.index)


class Reason(StrEnum):
    """Why a job or an attempt ended, or why a job waits again."""

    COMPLETED = "COMPLETED"
    USER_ERROR = "USER_ERROR"
    """The job's own code, data or spec failed."""
    INFRASTRUCTURE = "INFRASTRUCTURE"
    """A worker, node or connection was lost."""
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NON_FINITE_LOSS = "NON_FINITE_LOSS"
    HANG = "HANG"
    """A rank made no step for too long."""
    TIMEOUT = "TIMEOUT"
    """`limits.max_duration` is used up."""
    PENDING_TIMEOUT = "PENDING_TIMEOUT"
    """`limits.max_pending` is used up."""
    STOPPED_BY_USER = "STOPPED_BY_USER"
    PREEMPTED = "PREEMPTED"
    """It made room for a job of higher priority."""
    INTERRUPTED = "INTERRUPTED"
    """The agent went away: its lease ran out, or it handed the job back."""


class EventKind(StrEnum):
    """What can happen to a job: each has its line in ``platform/docs/concepts.md``."""

    SUBMITTED = "submitted"
    LEASED = "leased"
    RUNNING = "running"
    RESIZE_REQUESTED = "resize_requested"
    RESIZED = "resized"
    RUN_SET = "run_set"
    WAITING = "waiting"
    CHECKPOINT_DAMAGED = "checkpoint_damaged"
    PACKAGING = "packaging"
    MODEL_NOT_PACKAGED = "model_not_packaged"
    LOGS_DELAYED = "logs_delayed"
    NOTED = "noted"
    TRACKING = "tracking"
    ASKED = "asked"
    EXTENDED = "extended"
    TRIAL_FAILED = "trial_failed"
    NEW_BEST = "new_best"
    STOP_REQUESTED = "stop_requested"
    PAUSE_REQUESTED = "pause_requested"
    PREEMPT_REQUESTED = "preempt_requested"
    REQUEUED = "requeued"
    LEASE_EXPIRED = "lease_expired"
    QUEUED = "queued"
    PAUSED = "paused"
    RESUMED = "resumed"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"

    @classmethod
    def of(cls, state: JobState) -> EventKind:
        """Of a job that came into ``state`` at the end of an attempt."""
        return cls(state.lower())


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    """On request: of a user, or to make room."""
    INTERRUPTED = "INTERRUPTED"

    @classmethod
    def of(cls, reason: Reason) -> Outcome:
        return _OUTCOMES.get(reason, cls.FAILED)


_OUTCOMES = {
    Reason.COMPLETED: Outcome.SUCCEEDED,
    Reason.STOPPED_BY_USER: Outcome.STOPPED,
    Reason.PREEMPTED: Outcome.STOPPED,
    Reason.INTERRUPTED: Outcome.INTERRUPTED,
}
