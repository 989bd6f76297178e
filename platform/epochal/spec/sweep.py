"""The ``sweep`` block of a job spec: what to search, how, and for how long."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from epochal.spec.section import Choice, Section
from epochal.units import Interval

Finite = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]


class LogUniform(Section):
    """Log-uniform between two positive bounds."""

    dist: Literal["loguniform"]
    """Which distribution this is."""
    low: Annotated[Finite, Field(gt=0)]
    """The lower bound, included."""
    high: Annotated[Finite, Field(gt=0)]
    """The upper bound, included."""


class Uniform(Section):
    """Uniform between two bounds; in multiples of `step` where given."""

    dist: Literal["uniform"]
    """Which distribution this is."""
    low: Finite
    """The lower bound, included."""
    high: Finite
    """The upper bound, included."""
    step: Annotated[Finite, Field(gt=0)] | None = None
    """Only multiples of this above `low`."""


class IntUniform(Section):
    """Whole numbers between two bounds, both included; on a log scale where `log` is true."""

    dist: Literal["int"]
    """Which distribution this is."""
    low: Whole
    """The lower bound, included."""
    high: Whole
    """The upper bound, included."""
    step: Annotated[Whole, Field(gt=0)] = 1
    """Only multiples of this above `low`."""
    log: bool = False
    """Draw on a log scale."""


class ChoiceOf(Section):
    """One of the values listed."""

    choice: Annotated[list[Any], Field(min_length=1, max_length=1000)]
    """The values; any that the field takes."""


def _kind(value: Any) -> str | None:
    """Which distribution was written; None where that cannot be told."""
    given = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    kind = "choice" if given.get("choice") is not None else given.get("dist")
    return kind if isinstance(kind, str) else None


Distribution = Annotated[
    Annotated[LogUniform, Tag("loguniform")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[IntUniform, Tag("int")]
    | Annotated[ChoiceOf, Tag("choice")],
    Discriminator(
        _kind,
        custom_error_type="distribution",
        custom_error_message="expected {choice: [...]} or {dist: loguniform|uniform|int, low: ..., high: ...}",
    ),
]


class Search(Choice):
    """How points are chosen."""

    name: Literal["grid", "random", "sobol", "tpe", "gp", "cmaes"] = "tpe"
    """The searcher."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of what the searcher draws."""


class TrialScheduler(Choice):
    """Which trials are ended early, and where their budget goes."""

    name: Literal["none", "median", "asha", "hyperband", "pbt"] = "none"
    """The rule."""
    eta: Annotated[int, Field(ge=2, le=16)] = 3
    """Of `eta` trials one is promoted from each rung to the next."""
    min: Interval = Interval(1, "epochs")
    """The first rung: how long every trial trains before it is compared."""


class Sweep(Section):
    """A hyperparameter search over any field of the spec."""

    search: Search = Search()
    trial_scheduler: TrialScheduler = TrialScheduler()
    trials: Annotated[int, Field(ge=1, le=100_000)] = 32
    """Points that are tried."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Trials at a time; default: what the cluster fits."""
    failure_budget: Annotated[int, Field(ge=0)] = 3
    """How many trials may fail before the sweep does."""
    space: Annotated[dict[str, Distribution], Field(min_length=1, max_length=200)]
    """Dotted path of a spec field to what it may be."""

    @property
    def at_a_time(self) -> int:
        """How many trials may train at a time, at the most."""
        return self.concurrency or self.trials
