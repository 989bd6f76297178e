"""A submitted spec, checked once more: a client may be older than the server, or no client of ours; and points that are
added to a sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from epochal.catalog.index import check
from epochal.errors import Problem, SpecError, UsageError
from epochal.ledger.values import FullJob
from epochal.spec.job import JobSpec
from epochal.spec.load import load_text
from epochal.spec.point import spec_at
from epochal.spec.rules import broken
from epochal.spec.sweep_rules import unmet_conditions
from epochal.sweeps.check import check as check_sweep

_SOURCE = "the job spec"


def checked(document: Mapping[str, Any]) -> JobSpec:
    """
    Raises:
        SpecError: with every problem.
    """
    try:
        spec = JobSpec.model_validate(document)
    except ValidationError as error:
        raise SpecError(_SOURCE, _problems(document)) from error
    # Without the defaults that a client filled in: some rules are about what somebody asked for.
    written = JobSpec.model_validate(spec.model_dump(mode="json", exclude_defaults=True))
    if found := [*check(document), *check_sweep(document), *broken(written)]:
        raise SpecError(_SOURCE, tuple(found))
    return spec


def require_code(spec: JobSpec, digest: str | None) -> None:
    """
    Raises:
        UsageError: the spec ships code and no package was named, or the other way round.
    """
    if (spec.code is None) != (digest is None):
        wrong = "the spec has code, and no package is named"
        wrong = wrong if spec.code else "a package is named, and the spec has no code"
        raise UsageError(wrong, "`code` is the digest of what was sent with PUT /api/v1/code/DIGEST")


def require_points(job: FullJob, points: Sequence[Mapping[str, Any]]) -> None:
    """
    Raises:
        SpecError: with every problem of every point.
    """
    sweep = JobSpec.from_stored(dict(job.spec)).sweep
    wrong: list[Problem] = []
    for point in points:
        if unmet := list(unmet_conditions(sweep.searched, point)) if sweep is not None else []:
            wrong += unmet
            continue
        try:
            spec_at(job.spec, point, [check])
        except SpecError as error:
            wrong += error.problems
    if wrong:
        raise SpecError("the points", tuple(wrong))


def _problems(document: Mapping[str, Any]) -> tuple[Problem, ...]:
    """All of them, in the words of someone who writes a spec. There is no file, so they have no lines."""
    try:
        load_text(json.dumps(document), Path("/spec"), checks=[check, check_sweep], shown=_SOURCE)
    except SpecError as error:
        return error.unplaced()
    return (Problem("", "it is not valid as JSON, though it is as YAML"),)
