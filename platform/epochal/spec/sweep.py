"""The ``sweep`` block of a job spec: what to search, how, and for how long."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from epochal.spec.section import Choice, Section
from epochal.units import Interval


class LogUniform(Section):
    """Log-uniform between two positive bounds."""

    dist: Literal["loguniform"]
    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]


class Uniform(Section):
    """Uniform between two bounds; in multiples of `step` where given."""

    dist: Literal["uniform"]
    low: float
    high: float
    step: Annotated[float, Field(gt=0)] | None = None


class IntUniform(Section):
    """Whole numbers between two bounds, both included; on a log scale where `log` is true."""

    dist: Literal["int"]
    low: int
    high: int
    step: Annotated[int, Field(gt=0)] = 1
    log: bool = False


class ChoiceOf(Section):
    """One of the values listed."""

    choice: Annotated[list[Any], Field(min_length=1, max_length=1000)]


def _kind(value: Any) -> str | None:
    get = value.get if isinstance(value, dict) else lambda key: getattr(value, key, None)
    return "choice" if get("choice") is not None else get("dist")


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
    seed: int = 0


class TrialScheduler(Choice):
    """Which trials are ended early, and where their budget goes."""

    name: Literal["none", "median", "asha", "hyperband", "pbt"] = "none"
    eta: Annotated[int, Field(ge=2, le=16)] = 3
    """Of `eta` trials one is promoted from each rung to the next."""
    min: Interval = Interval(1, "epochs")
    """The first rung: how long every trial trains before it is compared."""


class Sweep(Section):
    """A hyperparameter search over any field of the spec."""

    search: Search = Search()
    trial_scheduler: TrialScheduler = TrialScheduler()
    trials: Annotated[int, Field(ge=1, le=100_000)] = 32
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Trials at a time; default: what the cluster fits."""
    failure_budget: Annotated[int, Field(ge=0)] = 3
    """How many trials may fail before the sweep does."""
    space: Annotated[dict[str, Distribution], Field(min_length=1)]
    """Dotted path of a spec field to what it may be."""
