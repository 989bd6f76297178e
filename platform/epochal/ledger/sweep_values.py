"""What the ledger holds of a sweep: its trials, what its controller was told, and what its users ask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from epochal.errors import UsageError
from epochal.ledger.json_values import Real, Time, Value
from epochal.sweeps.trials import Added, Cancelled, Extended, Measured, Repeated, Trial, TrialState

MOST_TRIALS = 100_000
"""Of a sweep, and so of one request."""

MOST_POINTS = 100
"""Of one request: a server checks each."""


@dataclass(frozen=True)
class TrialRecord(Value):
    """A trial as its agent last told of it; the times are the ledger's own.

    ``value`` is the objective at ``length``, and ``metrics`` are those of the validation there; ``curve`` has the
    objective at all lengths.
    """

    number: int
    point: Mapping[str, Any]
    state: TrialState
    length: Real = 0.0
    until: Real = 0.0
    value: Real | None = None
    metrics: Mapping[str, Real] = field(default_factory=dict)
    run_id: str | None = None
    reason: str | None = None
    message: str = ""
    started_at: Time | None = None
    ended_at: Time | None = None
    updated_at: Time | None = None
    curve: tuple[tuple[Real, Real], ...] = ()

    @classmethod
    def of(cls, trial: Trial, run_id: str | None = None, metrics: Mapping[str, float] | None = None) -> Self:
        """Of a controller's trial."""
        value = trial.curve[-1].value if trial.curve else None
        told = (trial.number, trial.point, trial.state, trial.length, trial.until, value)
        curve = tuple((one.length, one.value) for one in trial.curve)
        return cls(*told, metrics or {}, run_id, trial.why or None, trial.message, curve=curve)

    @property
    def trial(self) -> Trial:
        """As a controller has it."""
        curve = tuple(Measured(length, value) for length, value in self.curve)
        return Trial(self.number, self.point, self.state, self.until, curve, self.reason or "", self.message)


@dataclass(frozen=True)
class NewInput(Value):
    """What a controller is told: a JSON document of the agent's. ``key`` is that of the request it was made of."""

    body: Mapping[str, Any]
    key: str | None = None


@dataclass(frozen=True)
class StoredInput(Value):
    """An input in its place: ``seq`` counts from 1, without gaps. ``epoch`` is the attempt that wrote it."""

    seq: int
    epoch: int
    body: Mapping[str, Any]
    key: str | None = None


@dataclass(frozen=True)
class SweepRequest(Value):
    """What a user asked of a sweep. ``seq`` counts from 1; ``body`` is one of ``Ask``."""

    seq: int
    key: str
    body: Mapping[str, Any]
    at: Time
    by: str

    @property
    def told(self) -> Extended | Added | Repeated | Cancelled:
        """
        Raises:
            UsageError: this version knows no such request.
        """
        return asked(self.body).told

    def __str__(self) -> str:
        try:
            return str(asked(self.body))
        except UsageError:
            return f"{self.body.get('kind')}"


class _Ask(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    @property
    def trial_number(self) -> int | None:
        """The trial that it is about."""
        return None


class Extend(_Ask):
    """So many trials more."""

    kind: Literal["extend"]
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)]

    @property
    def told(self) -> Extended:
        return Extended(self.trials)

    def __str__(self) -> str:
        return f"{self.trials} trial{'' if self.trials == 1 else 's'} more"


class Add(_Ask):
    """Points to try next, beyond the sweep's number of trials: dotted path of a spec field to its value."""

    kind: Literal["add"]
    points: Annotated[list[Annotated[dict[str, Any], Field(min_length=1)]], Field(min_length=1, max_length=MOST_POINTS)]

    @property
    def told(self) -> Added:
        return Added(tuple(self.points))

    def __str__(self) -> str:
        count = len(self.points)
        return f"{count} point{'' if count == 1 else 's'} to try next"


class Repeat(_Ask):
    """A trial's point again, so many times, each with another seed."""

    kind: Literal["repeat"]
    trial: Annotated[int, Field(ge=0, le=2 * MOST_TRIALS)]
    times: Annotated[int, Field(ge=1, le=1000)] = 1

    @property
    def trial_number(self) -> int:
        return self.trial

    @property
    def told(self) -> Repeated:
        return Repeated(self.trial, self.times)

    def __str__(self) -> str:
        return f"trial {self.trial}, {'once' if self.times == 1 else f'{self.times} times'} more"


class Cancel(_Ask):
    """One trial is to end."""

    kind: Literal["cancel"]
    trial: Annotated[int, Field(ge=0, le=2 * MOST_TRIALS)]

    @property
    def trial_number(self) -> int:
        return self.trial

    @property
    def told(self) -> Cancelled:
        return Cancelled(self.trial)

    def __str__(self) -> str:
        return f"trial {self.trial} is to end"


Ask = Annotated[Extend | Add | Repeat | Cancel, Field(discriminator="kind")]
_KNOWN = "known: extend (trials), add (points), repeat (trial, times), cancel (trial)"
_ASK: TypeAdapter[Extend | Add | Repeat | Cancel] = TypeAdapter(Ask)


def asked(body: Mapping[str, Any]) -> Extend | Add | Repeat | Cancel:
    """
    Raises:
        UsageError: it is no request of a sweep's.
    """
    try:
        return _ASK.validate_python(dict(body))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'][1:])) or 'kind'}: {one['msg']}" for one in error.errors())
        raise UsageError(f"this cannot be asked of a sweep: {wrong}", _KNOWN) from None


def best_first(trials: Sequence[TrialRecord], mode: str) -> list[TrialRecord]:
    """Those that trained to their full length by the objective, then others by theirs; then those without a number, and
    those that FAILED. Of equals, by number.

    Args:
        mode: ``max`` or ``min``, as ``objective.mode``.
    """
    sign = -1.0 if mode == "max" else 1.0
    ranked = sorted(
        (one for one in trials if is_ranked(one)),
        key=lambda one: (one.state is not TrialState.COMPLETED, sign * (one.value or 0.0), one.number),
    )
    return [*ranked, *sorted((one for one in trials if not is_ranked(one)), key=attrgetter("number"))]


def is_ranked(trial: TrialRecord) -> bool:
    """Whether it counts among the best: it did not fail, and its objective is a number."""
    return trial.state is not TrialState.FAILED and trial.value is not None and not math.isnan(trial.value)


def best_of(trials: Sequence[TrialRecord], mode: str) -> TrialRecord | None:
    """The first of ``best_first``; None where none counts among the best."""
    return next(filter(is_ranked, best_first(trials, mode)), None)
