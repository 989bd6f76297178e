"""Durations, sizes and intervals that carry their unit.

>>> Duration.parse("1h30m").seconds
5400.0
>>> int(Bytes.parse("2GiB"))
2147483648
>>> str(Interval.parse("500steps"))
'500steps'
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_NUMBER = r"\d{1,19}(?:\.\d{1,9})?"
_LONGEST = 36_500 * 86_400.0
_LARGEST = 2**60
_MOST = 10**12
_DURATION_PART = re.compile(rf"({_NUMBER})(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_NUMBER}(?:ms|s|m|h|d)){{1,5}}")
_SIZE = re.compile(rf"({_NUMBER})\s?([KMGT]i?B|B)")
_INTERVAL = re.compile(rf"({_NUMBER})\s?(ep|epochs?|steps?)")


def three_digits(value: float) -> str:
    """A number of at least 0 for reading, to three digits, or whole where it is larger, and without an exponent.

    >>> three_digits(1.2345), three_digits(999.7), three_digits(1234567)
    ('1.23', '1,000', '1,234,567')
    """
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


class _Text:
    """What the unit types share: they are read from text, printed as text and described to JSON Schema as text."""

    expected: str
    pattern: str

    @classmethod
    def parse(cls, text: str) -> Any:
        raise NotImplementedError

    @classmethod
    def _validate(cls, value: object) -> Any:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise ValueError(f"expected {cls.expected}")  # pydantic reports ValueError
        return cls.parse(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": cls.pattern, "description": f"{cls.expected[0].upper()}{cls.expected[1:]}"}


@dataclass(frozen=True, order=True)
class Duration(_Text):
    """A length of time: ``90s``, ``10m``, ``1h30m``, ``2d``."""

    seconds: float
    expected = "a duration with its unit, such as 90s, 10m, 1h30m or 2d"
    pattern = r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read to the millisecond, at most a hundred years."""
        if not _DURATION.fullmatch(text):
            raise ValueError(f"expected {cls.expected}")
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
        if seconds > _LONGEST:
            raise ValueError("expected a duration of at most 36500d")
        return cls(round(seconds, 3))

    def __str__(self) -> str:
        rest = round(self.seconds * 1000)
        if rest < 1000:
            return f"{rest}ms"
        parts = []
        for unit in ("d", "h", "m"):
            count, rest = divmod(rest, round(_SECONDS[unit] * 1000))
            if count:
                parts.append(f"{count}{unit}")
        if rest:
            parts.append(f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s")
        return "".join(parts)


class Bytes(int, _Text):
    """A size in bytes: ``512MiB``, ``2GiB``, ``1.5GB``."""

    expected = "a size with its unit, such as 512MiB or 2GiB"
    pattern = r"^\d+(\.\d+)? ?([KMGT]i?B|B)$"

    @classmethod
    def parse(cls, text: str) -> Bytes:
        match = _SIZE.fullmatch(text)
        if not match:
            raise ValueError(f"expected {cls.expected}")
        size = round(Decimal(match[1]) * _BYTES[match[2]])
        if size > _LARGEST:
            raise ValueError("expected a size of at most 1048576TiB")
        return cls(size)

    def __str__(self) -> str:
        for unit in ("TiB", "GiB", "MiB", "KiB"):
            if self and self % _BYTES[unit] == 0:
                return f"{self // _BYTES[unit]}{unit}"
        return f"{int(self)}B"

    def human(self) -> str:
        """Rounded for reading: ``1.3 GiB``."""
        for unit in ("TiB", "GiB", "MiB", "KiB"):
            if self >= _BYTES[unit]:
                return f"{three_digits(self / _BYTES[unit])} {unit}"
        return f"{int(self)} B"


@dataclass(frozen=True)
class Interval(_Text):
    """How often, or from when: ``1ep`` (epochs; fractions allowed), ``500steps``, or a time such as ``10m``."""

    value: float
    unit: Literal["epochs", "steps", "seconds"]
    expected = "an interval: epochs (1ep, 0.5ep), steps (500steps) or time (10m)"
    pattern = r"^(\d+(\.\d+)? ?(ep|epochs?|steps?)|(\d+(\.\d+)?(ms|s|m|h|d))+)$"

    @classmethod
    def parse(cls, text: str) -> Interval:
        if match := _INTERVAL.fullmatch(text):
            value = float(match[1])
            steps = match[2].startswith("step")
            if not 0 < value <= _MOST or (steps and value != int(value)):
                raise ValueError(f"expected {cls.expected}, above zero and steps whole")
            return cls(value, "steps" if steps else "epochs")
        if _DURATION.fullmatch(text) and (seconds := Duration.parse(text).seconds) > 0:
            return cls(seconds, "seconds")
        raise ValueError(f"expected {cls.expected}")

    def steps(self, steps_per_epoch: int) -> int | None:
        """The interval in optimizer steps, at least 1; None where it is a time."""
        if self.unit == "seconds":
            return None
        return max(1, round(self.value * (steps_per_epoch if self.unit == "epochs" else 1)))

    def __str__(self) -> str:
        if self.unit == "seconds":
            return str(Duration(self.value))
        number = format(Decimal(repr(self.value)), "f").removesuffix(".0")
        return f"{number}{'ep' if self.unit == 'epochs' else 'steps'}"
