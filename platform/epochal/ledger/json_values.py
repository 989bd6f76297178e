"""Frozen dataclasses that travel as JSON: ``to_dict``, and ``from_dict`` back. No database here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ConfigDict, PlainSerializer, TypeAdapter, ValidationError, WithJsonSchema

from epochal.errors import UnreachableError


def iso(seconds: float) -> str:
    """
    >>> iso(0.5)
    '1970-01-01T00:00:00.500Z'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(text: str) -> float:
    """
    >>> seconds_of("1970-01-01T00:00:00.500Z")
    0.5
    """
    return datetime.fromisoformat(str(text)).timestamp()  # of what is no text, pydantic is to be told by a ValueError


Time = Annotated[
    float, BeforeValidator(seconds_of), PlainSerializer(iso), WithJsonSchema({"type": "string", "format": "date-time"})
]
"""Seconds since 1970; in JSON ISO 8601 text, to the millisecond."""


def _said(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)


Real = Annotated[
    float,
    PlainSerializer(_said),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "enum": ["nan", "inf", "-inf"]}]}),
]
"""A number; NaN and infinity, which JSON has no word for, are text there, as the ledger writes them."""

_SHOWN = 3

Seconds = Annotated[float, PlainSerializer(lambda seconds: round(seconds, 3), return_type=float)]


def not_understood(why: str) -> UnreachableError:
    """Of an answer that came from a server of another version, or from something else."""
    hint = "is the server of another version than this client (`epochal version`)?"
    return UnreachableError(f"the server's answer is not understood: {why}", hint)


class Value:
    """A frozen dataclass that can be printed as JSON and read again."""

    __pydantic_config__: ClassVar = ConfigDict(hide_input_in_errors=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain types only; times are ISO 8601 text, to the millisecond."""
        document: dict[str, Any] = _adapter(type(self)).dump_python(self, mode="json")  # type: ignore[arg-type]
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """What ``to_dict`` gave. Keys that this version does not know are ignored, missing ones take their defaults.

        Raises:
            UnreachableError: a value without a default is missing, or not of its field's kind.
        """
        try:
            value: Self = _adapter(cls).validate_python(document)  # type: ignore[arg-type]  # classes are hashable
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:_SHOWN])
            raise not_understood(f"it is not a {cls.__name__} ({wrong})") from error
        return value


@cache
def _adapter(kind: type[Value]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
