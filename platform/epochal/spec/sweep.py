"""The ``sweep`` block of a job spec: what to search, how, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, create_model

from epochal.spec.section import Choice, Section
from epochal.spec.space import Distribution, Entry, entry_of
from epochal.units import Interval

if TYPE_CHECKING:

    class _WarmStarted(Choice): ...
else:  # a key that no Python attribute can be written as
    _FROM = Field(None, min_length=1, max_length=200, description="An earlier sweep, whose trials it learns from too.")
    _WarmStarted = create_model("_WarmStarted", __base__=Choice, **{"from": (str | None, _FROM)})


class Search(_WarmStarted):
    """How points are chosen, by the name of a searcher, its parameters beside it."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = "tpe"
    """The searcher."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of what the searcher draws."""

    @property
    def earlier(self) -> str | None:
        """The job whose trials it learns from too."""
        earlier: str | None = getattr(self, "from")
        return earlier


class TrialScheduler(Choice):
    """Which trials end early, and where their budget goes; its parameters beside its name."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = "none"
    """The trial scheduler."""
    min: Interval = Interval(1, "epochs")
    """The first rung: how long every trial trains before it is compared. In what `train` counts: epochs or steps."""


def _pack(value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
    """What is wrong with it is one problem, not one for each member of the union."""
    try:
        return validated(value)
    except ValidationError:
        raise ValueError("expected auto, off or a whole number from 2 to 1024") from None


class Sweep(Section):
    """A hyperparameter search over the fields of `model`, `data`, `task` and `train`."""

    search: Search = Search()
    trial_scheduler: TrialScheduler = TrialScheduler()
    trials: Annotated[int, Field(ge=1, le=100_000)] = 32
    """Points that are tried; fewer where the searcher has no more."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Trials at a time; default: what the cluster fits."""
    pack: Annotated[Literal["auto", "off"] | Annotated[int, Field(ge=2, le=1024)], WrapValidator(_pack)] = "auto"
    """Trials that differ only in numbers such as the learning rate train together in one worker, as many as this at a
    time; `auto`: where it is faster."""
    failure_budget: Annotated[int, Field(ge=0)] = 3
    """How many trials may fail before the sweep does."""
    space: Annotated[dict[str, Distribution], Field(min_length=1, max_length=200)]
    """Dotted path of a spec field to what it may be."""
    points: Annotated[list[dict[str, Any]], Field(max_length=10_000)] = []
    """Points of your own, tried first, among the `trials`: dotted path to value. What is searched and a point leaves
    out is drawn at random."""

    @property
    def searched(self) -> dict[str, Entry]:
        """The space, with bare values as the constants they stand for."""
        return {path: entry_of(written) for path, written in self.space.items()}

    @property
    def at_a_time(self) -> int:
        """How many trials may train at a time, at the most."""
        return self.concurrency or self.trials
