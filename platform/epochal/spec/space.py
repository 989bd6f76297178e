"""What a searched field of a sweep may be: distributions, choices and constants."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from math import exp
from sys import float_info
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from epochal.spec.section import Section

WITHIN = 4.0
"""A normal distribution is drawn from within so many sigma of its mean: 0.006 % of it is left out."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]  # what a float, and so JSON anywhere, holds exactly
Exponent = Annotated[float, Field(ge=-300, le=300)]  # exp() is finite and not 0, also four of the largest sigma away


class Searched(Section):
    """A field that trials may differ in."""

    when: Annotated[dict[str, Annotated[list[Any], Field(min_length=1, max_length=1000)]], Field(max_length=20)] = {}
    """Only in points where each of these paths, searched with `choice` too, has one of the values listed. In others
    the field is as the spec has it."""


class Ranged(Searched):
    """Numbers, of which ``bounds`` are the smallest and the largest."""

    @property
    def bounds(self) -> tuple[float, float]:
        raise NotImplementedError

    @property
    def origin(self) -> float:
        """What steps are counted from."""
        return self.bounds[0]

    @property
    def spacing(self) -> float | None:
        """The distance between two values; None where every number is one."""
        step: float | None = getattr(self, "step", None)
        return step

    def nearest(self, value: float) -> int | float:
        """The value closest to a number."""
        low, high = self.bounds
        if self.spacing is None:
            return min(max(value, low), high)
        first, last = self._levels()
        # In decimals, as the user wrote them: three binary steps of 0.1 are 0.30000000000000004.
        level = (Decimal(repr(value)) - Decimal(repr(self.origin))) / Decimal(repr(self.spacing))
        return self._level(min(max(int(level.to_integral_value(ROUND_HALF_EVEN)), first), last))

    def values(self) -> Iterator[int | float]:
        """All of them, ascending, which may be more than anybody can list; none where they are not counted."""
        if self.spacing is not None:
            first, last = self._levels()
            yield from map(self._level, range(first, last + 1))

    def count(self) -> int | None:
        """How many values there are; None where they are not counted."""
        if self.spacing is None:
            return None
        first, last = self._levels()
        return max(0, last - first + 1)

    def ends(self) -> list[tuple[str, Any]]:
        """The smallest and the largest value, each with the key that sets it."""
        return [
            ("low" if getattr(self, "low", None) is not None else "", self.nearest(self.bounds[0])),
            ("high" if getattr(self, "high", None) is not None else "", self.nearest(self.bounds[1])),
        ]

    def _levels(self) -> tuple[int, int]:
        """The numbers of the first and the last step within the bounds."""
        low, high = (Decimal(repr(bound)) - Decimal(repr(self.origin)) for bound in self.bounds)
        step = Decimal(repr(self.spacing))
        return int((low / step).to_integral_value(ROUND_CEILING)), int((high / step).to_integral_value(ROUND_FLOOR))

    def _level(self, level: int) -> int | float:
        return float(Decimal(repr(self.origin)) + level * Decimal(repr(self.spacing)))


class Uniform(Ranged):
    """Uniform between two bounds."""

    dist: Literal["uniform"]
    """Which distribution this is."""
    low: Finite
    """The lower bound, included."""
    high: Finite
    """The upper bound, included."""
    step: Positive | None = None
    """Only `low` and multiples of this above it."""

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high


class LogUniform(Ranged):
    """Log-uniform between two positive bounds."""

    dist: Literal["loguniform"]
    """Which distribution this is."""
    low: Positive
    """The lower bound, included."""
    high: Positive
    """The upper bound, included."""
    step: Positive | None = None
    """What is drawn goes to the nearest of `low` and multiples of this above it."""

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high


class IntUniform(Ranged):
    """Whole numbers between two bounds; on a log scale where `log` is true."""

    dist: Literal["int"]
    """Which distribution this is."""
    low: Whole
    """The lower bound, included."""
    high: Whole
    """The upper bound, included."""
    step: Annotated[Whole, Field(gt=0)] = 1
    """Only `low` and multiples of this above it."""
    log: bool = False
    """Draw on a log scale."""

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high

    def _level(self, level: int) -> int | float:
        return self.low + level * self.step


class Normal(Ranged):
    """Normal about a mean, within four sigma of it and within the bounds."""

    dist: Literal["normal"]
    """Which distribution this is."""
    mean: Finite
    """Of the values."""
    sigma: Positive
    """The standard deviation of the values."""
    low: Finite | None = None
    """Nothing below this is drawn."""
    high: Finite | None = None
    """Nothing above this is drawn."""
    step: Positive | None = None
    """What is drawn goes to the nearest multiple of this, counted from `low`, or from 0 where there is no `low`."""

    @property
    def bounds(self) -> tuple[float, float]:
        return _within(self, self.mean - WITHIN * self.sigma, self.mean + WITHIN * self.sigma)

    @property
    def origin(self) -> float:
        return self.low or 0.0


class LogNormal(Ranged):
    """Values whose natural logarithm is normal about a mean, within four sigma of it and within the bounds."""

    dist: Literal["lognormal"]
    """Which distribution this is."""
    mean: Exponent
    """Of the natural logarithms: half of the values are below exp(mean). For about 1e-3 it is -6.9."""
    sigma: Annotated[float, Field(gt=0, le=50)]
    """The standard deviation of the natural logarithms; 2.3 is a factor of ten."""
    low: Positive | None = None
    """Nothing below this is drawn."""
    high: Positive | None = None
    """Nothing above this is drawn."""
    step: Positive | None = None
    """What is drawn goes to the nearest multiple of this, counted from `low`, or from 0 where there is no `low`."""

    @property
    def bounds(self) -> tuple[float, float]:
        return _within(self, exp(self.mean - WITHIN * self.sigma), exp(self.mean + WITHIN * self.sigma))

    @property
    def origin(self) -> float:
        return self.low or 0.0


def _within(entry: Normal | LogNormal, low: float, high: float) -> tuple[float, float]:
    return (
        max(low, -float_info.max if entry.low is None else entry.low),
        min(high, float_info.max if entry.high is None else entry.high),
    )


class ChoiceOf(Searched):
    """One of the values listed."""

    choice: Annotated[list[Any], Field(min_length=1, max_length=1000)]
    """The values; any that the field takes."""

    def ends(self) -> list[tuple[str, Any]]:
        """Every value, each with its key."""
        return [(f"choice.{index}", value) for index, value in enumerate(self.choice)]


class Constant(Searched):
    """The same value in every trial, or with `when` in those it is for. Without `when` the bare value does as well."""

    value: Any
    """The value; any that the field takes."""

    def ends(self) -> list[tuple[str, Any]]:
        return [("value", self.value)]


Scalar = bool | int | float | str


def _kind(value: Any) -> str | None:
    """Which distribution was written; None where that cannot be told."""
    if isinstance(value, Scalar):
        return "scalar"
    given = value if isinstance(value, dict) else getattr(value, "__dict__", {})  # a model, where pydantic writes one
    if given.get("choice") is not None:
        return "choice"
    kind = given.get("dist") or ("value" if "value" in given else None)
    return kind if isinstance(kind, str) else None


Distribution = Annotated[
    Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[IntUniform, Tag("int")]
    | Annotated[Normal, Tag("normal")]
    | Annotated[LogNormal, Tag("lognormal")]
    | Annotated[ChoiceOf, Tag("choice")]
    | Annotated[Constant, Tag("value")]
    | Annotated[Scalar, Tag("scalar")],
    Discriminator(
        _kind,
        custom_error_type="distribution",
        custom_error_message="expected {choice: [...]}, {value: ...}, {dist: loguniform|uniform|int, low: ..., "
        "high: ...} or {dist: normal|lognormal, mean: ..., sigma: ...}",
    ),
]

DISTRIBUTIONS = ("uniform", "loguniform", "int", "normal", "lognormal")
"""What `dist` may be."""

Entry = Uniform | LogUniform | IntUniform | Normal | LogNormal | ChoiceOf | Constant


def entry_of(written: Any) -> Entry:
    """A ``Distribution``, a bare value as the constant that it stands for."""
    return Constant(value=written) if isinstance(written, Scalar) else written
