"""Frozen dataclasses that travel as JSON: ``to_dict``, and ``from_dict`` back. No database here."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import MISSING, Field, fields
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Self, Union, get_args, get_origin, get_type_hints


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


class Value:
    """A frozen dataclass that can be printed as JSON and read again."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types only; times (fields named ``at`` or ``*_at``) become ISO 8601 text, to the millisecond."""
        return {field.name: _plain(field.name, getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """What ``to_dict`` gave. Keys that this version does not know are ignored, missing ones take their defaults.

        Raises:
            ValueError: a value without a default is missing, or not of its field's kind.
        """
        hints = _hints(cls)  # type: ignore[arg-type]  # classes are hashable
        try:
            values = {
                field.name: _read(field.name, hints[field.name], document[field.name])
                for field in fields(cls)  # type: ignore[arg-type]
                if field.name in document or not _has_default(field)
            }
            return cls(**values)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not a {cls.__name__}: {error!r}") from error


@cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return get_type_hints(cls)


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _is_time(name: str) -> bool:
    return name == "at" or name.endswith("_at")


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Value):
        return value.to_dict()
    if isinstance(value, Enum):
        return value.value
    if _is_time(name) and value is not None:
        return iso(value)
    if name.endswith("_seconds"):
        return round(value, 3)
    if isinstance(value, tuple):
        return [_plain("", one) for one in value]
    return dict(value) if isinstance(value, Mapping) else value


def _read(name: str, kind: Any, value: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        if value is None:
            return None
        kind = next(one for one in get_args(kind) if one is not NoneType)
    if _is_time(name):
        return seconds_of(value)
    if get_origin(kind) is tuple:
        return tuple(_read("", get_args(kind)[0], one) for one in value)
    if isinstance(kind, type) and issubclass(kind, Value):
        return kind.from_dict(value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    return float(value) if kind is float else value
