"""The spec that trains one point of a sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epochal.errors import Problem, SpecError
from epochal.spec.job import JobSpec
from epochal.spec.load import Check, load_text
from epochal.spec.sweep_rules import SWEPT


def spec_at(
    stored: Mapping[str, Any], point: Mapping[str, Any], checks: Sequence[Check] = (), changes: Sequence[str] = ()
) -> JobSpec:
    """The job spec of a sweep, as it is ``stored``, with the values of a point and no ``sweep`` block.

    Args:
        point: dotted path of a spec field to its value.
        checks: of names and parameters, as ``load_text`` takes them.
        changes: ``path=value``, put in after the point.

    Raises:
        SpecError: with every problem of the point: a path that trials may not differ in, a value that does not fit.
    """
    source = f"the point {json.dumps(dict(point), default=str)}"
    if wrong := [_outside(path) for path in point if path.partition(".")[0] not in SWEPT]:
        raise SpecError(source, tuple(wrong))
    # Without the defaults that a client filled in: some rules are about what somebody asked for.
    written = JobSpec.from_stored(dict(stored)).model_dump(mode="json", exclude_defaults=True)
    written.pop("sweep", None)
    values = [f"{path}={json.dumps(value)}" for path, value in point.items()]
    try:
        # As if written in some file: nothing is read from its folder.
        return load_text(json.dumps(written), Path("/spec"), [*values, *changes], checks, source).spec
    except SpecError as error:
        raise SpecError(source, error.unplaced()) from None


def _outside(path: str) -> Problem:
    return Problem(path, "trials of one sweep cannot differ in this", hint=f"they can in {', '.join(SWEPT)}")
