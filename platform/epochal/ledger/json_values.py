"""Frozen dataclasses that travel as JSON: ``to_dict``, and ``from_dict`` back. No database here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ConfigDict, PlainSerializer, TypeAdapter, ValidationError, WithJsonSchema

from epochal.redaction import said


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
    return datetime.fromisoformat(text).timestamp()


Time = Annotated[
    float,
    BeforeValidator(seconds_of),
    PlainSerializer(iso),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""Seconds since 1970; in JSON ISO 8601 text, to the millisecond."""

Seconds = Annotated[float, PlainSerializer(lambda seconds: round(seconds, 3), return_type=float)]


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
            ValueError: a value without a default is missing, or not of its field's kind.
        """
        try:
            value: Self = _adapter(cls).validate_python(document)  # type: ignore[arg-type]  # classes are hashable
        except ValidationError as error:
            raise ValueError(f"not a {cls.__name__}: {said(error)}") from error
        return value


@cache
def _adapter(kind: type[Value]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
