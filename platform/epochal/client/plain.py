"""What Python people have in hand, as the plain values of a spec: numbers of numpy, paths, models, enums, tensors.

Nothing of theirs is imported: they are known by what they can do (``tolist``, ``model_dump``, ``__fspath__``).
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from numbers import Integral, Real
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

from epochal.errors import Problem, SpecError
from epochal.redaction import said
from epochal.units import Duration

_DEEPEST = 40
_CODE = "code is named by text, such as model.name='my_nets:Net', and shipped by `code`"
_TAKEN = "text, numbers, lists, mappings, paths, enums, dataclasses, pydantic models, and numbers and arrays of numpy"


class _NotPlainError(Exception):
    """A value without a clear plain one, and what to give instead."""


def plain(value: object, source: str) -> Any:
    """``value`` as a YAML file could hold it.

    Raises:
        SpecError: with every part that has no clear plain value, by its place: ``model.params.hidden[2]``.
    """
    problems: list[Problem] = []
    taken = _plain(value, "", problems, 0)
    if problems:
        raise SpecError(source, tuple(problems))
    return taken


def seconds_of(value: Any) -> float:
    """A number of seconds, or a ``timedelta`` or pandas' ``Timedelta``."""
    return float(value.total_seconds() if hasattr(value, "total_seconds") else value)


def _plain(value: Any, place: str, problems: list[Problem], depth: int) -> Any:
    try:
        if depth > _DEEPEST:
            raise _NotPlainError("it holds itself, or is nested too deep")
        if type(value) is str:
            value.encode()  # half a character raises a ValueError here, where its place is known
        # Exactly of these: a subclass of numpy's or an enum's goes through its row below.
        if type(value) in (str, int, float, bool, type(None)):
            return value
        if isinstance(value, Mapping):
            named = [(_key(key), item) for key, item in value.items()]
            return {key: _plain(item, f"{place}.{key}".lstrip("."), problems, depth + 1) for key, item in named}
        if type(value) is list:
            return [_plain(item, f"{place}[{index}]", problems, depth + 1) for index, item in enumerate(value)]
        plainer = next(take for is_one, take in _WAYS if is_one(value))
        return _plain(plainer(value), place, problems, depth + 1)
    except _NotPlainError as error:
        kind = type(value)
        what = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
        problems.append(Problem(place, f"expected a plain value, got {what}: {said(error)}"))
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:  # the object's own, asked for its value
        problems.append(Problem(place, f"{type(value).__name__} gives no plain value: {said(error)}"))
    return None


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


def _refused(instead: str) -> Callable[[Any], Any]:
    def refuse(_value: Any) -> Any:
        raise _NotPlainError(instead)

    return refuse


def _array(value: Any) -> Any:
    """Arrays, series, tensors, and numpy's scalars."""
    if getattr(value, "shape", ()):
        return list(value)
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "m":
        return Duration(value / type(value)(1, "s"))
    if kind in ("c", "V", "O"):
        raise _NotPlainError("it is no real number")
    if kind == "M":
        return str(value)
    return float(str(value)) if kind == "f" else value.tolist()  # 0.1 of 32 bits is 0.1, not 0.10000000149011612


def _moment(value: Any) -> str:
    if value != value:  # noqa: PLR0124 - as pandas' NaT is
        raise _NotPlainError("it is no time")
    return str(value.isoformat())


def _model(value: Any) -> Any:
    """Of our own models what was written is meant; of others their defaults are."""
    return value.model_dump(exclude_unset=type(value).__module__.startswith("epochal."))


# The order matters where a value is of two kinds: a member of a StrEnum is text too, a class has the attributes of its
# instances (`tolist`, `model_dump`), numpy's scalars are numbers, pandas' times are dates, and text is a Sequence.
_WAYS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    (_is(Enum), attrgetter("value")),
    (_is(str), str.__str__),
    (_is(os.PathLike), os.fsdecode),
    (_is(type), _refused(_CODE)),
    (lambda value: hasattr(value, "tolist"), _array),
    (_is(Integral), int),
    (_is(Real, Decimal), float),
    (_is(Duration), str),
    (_is(timedelta), lambda value: Duration(value.total_seconds())),
    (_is(date, time), _moment),
    (lambda value: hasattr(value, "model_dump"), _model),
    (is_dataclass, lambda value: {field.name: getattr(value, field.name) for field in fields(value)}),
    (_is(SimpleNamespace, Namespace), vars),
    (_is(set, frozenset), _refused("it has no order: give sorted(...)")),
    (_is(bytes, bytearray, memoryview), _refused("give text: value.decode()")),
    (_is(Sequence), list),
    (lambda value: hasattr(value, "__iter__"), _refused("give list(...)")),
    (callable, _refused(_CODE)),
    (lambda value: True, _refused(f"taken are {_TAKEN}")),
)
"""One step towards a plain value, by the first row that fits; a value may need several."""


def _key(key: Any) -> str:
    key = key.value if isinstance(key, Enum) else key
    if not isinstance(key, str):
        raise _NotPlainError(f"its keys have to be text, and one is {key!r}")
    return str.__str__(key)
