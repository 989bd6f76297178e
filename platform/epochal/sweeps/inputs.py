"""The inputs of a sweep's controller as JSON, as the ledger keeps them to be replayed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from epochal.errors import ConflictError
from epochal.sweeps.trials import (
    Added,
    Asked,
    Cancelled,
    Command,
    Extended,
    Failed,
    Input,
    Interrupted,
    Reached,
    Repeated,
    Run,
)


def to_json(told: Input, answer: Sequence[Command] = ()) -> dict[str, Any]:
    """The input as JSON types: its ``kind`` and its fields. NaN and infinity, which JSON has no word for, become text.

    ``answer`` is what the controller said to it: trial and point of a ``Run`` are kept with the ``Asked`` it answers.

    >>> to_json(Reached(3, 1.0, math.nan))
    {'kind': 'reached', 'trial': 3, 'length': 1.0, 'value': 'nan', 'done': False, 'metrics': {}, 'step': 0}
    """
    runs = [command for command in answer if isinstance(command, Run)]
    if isinstance(told, Asked) and runs:
        told = replace(told, trial=runs[0].trial, point=runs[0].point)
    fields = {name: _plain(value) for name, value in vars(told).items()}
    return {"kind": type(told).__name__.lower(), **fields}


def from_json(document: Mapping[str, Any]) -> Input:
    """The input that ``to_json`` described; keys that this version does not know are ignored.

    Raises:
        ConflictError: it is of no kind that this version knows, or lacks a field.
    """
    kind = document.get("kind")
    try:
        return _READ[str(kind)](document)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConflictError(
            f"this version cannot read the input {dict(document)!r} of a sweep",
            "it was written by another version of Epochal: go on with the sweep with that one",
        ) from error


def _asked(document: Mapping[str, Any]) -> Asked:
    holds, trial, point = (document.get(key) for key in ("holds", "trial", "point"))
    return Asked(
        None if holds is None else int(holds),
        None if trial is None else int(trial),
        None if point is None else dict(point),
    )


def _reached(document: Mapping[str, Any]) -> Reached:
    return Reached(
        int(document["trial"]),
        float(document["length"]),
        float(document["value"]),
        bool(document.get("done", False)),
        {str(name): float(value) for name, value in document.get("metrics", {}).items()},
        int(document.get("step", 0)),
    )


def _interrupted(document: Mapping[str, Any]) -> Interrupted:
    trials = document.get("trials")
    return Interrupted(None if trials is None else tuple(int(trial) for trial in trials))


_READ: Mapping[str, Callable[[Mapping[str, Any]], Input]] = {
    "asked": _asked,
    "reached": _reached,
    "failed": lambda read: Failed(int(read["trial"]), str(read["reason"]), str(read["message"])),
    "interrupted": _interrupted,
    "extended": lambda read: Extended(int(read["trials"])),
    "added": lambda read: Added(tuple(dict(point) for point in read["points"])),
    "repeated": lambda read: Repeated(int(read["trial"]), int(read["times"])),
    "cancelled": lambda read: Cancelled(int(read["trial"])),
}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
