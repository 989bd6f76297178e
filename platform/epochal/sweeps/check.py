"""What is wrong with the searcher and the trial scheduler that a job spec names: their names, parameters and rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from epochal.errors import NotFoundError, Problem
from epochal.registry import Registry
from epochal.spec.job import JobSpec
from epochal.spec.params import problems_of
from epochal.spec.section import Choice
from epochal.spec.sweep import Search
from epochal.spec.sweep import TrialScheduler as TrialSchedulerSection
from epochal.sweeps.entries import Entry, Params
from epochal.sweeps.searcher import Searcher, sweep_of
from epochal.sweeps.searchers import SEARCHERS
from epochal.sweeps.trial_scheduler import TrialScheduler
from epochal.sweeps.trial_schedulers import TRIAL_SCHEDULERS


@dataclass(frozen=True)
class _Kind:
    path: str
    section: type[Choice]
    table: Registry[Any]


_KINDS = (
    _Kind("sweep.search", Search, SEARCHERS),
    _Kind("sweep.trial_scheduler", TrialSchedulerSection, TRIAL_SCHEDULERS),
)


def check(tree: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the sweep of a job spec's tree of plain values; nothing where it has none.

    The rules of an entry are asked where the spec is right by itself.
    """
    if not isinstance(sweep := tree.get("sweep"), Mapping):
        return []
    try:
        spec = JobSpec.model_validate(tree)
    except ValidationError:
        spec = None
    return [problem for kind in _KINDS for problem in _problems(kind, sweep, spec)]


def searcher_of(spec: JobSpec) -> Searcher:
    """The searcher of a sweep.

    Raises:
        NotFoundError: there is none of that name here.
        ValidationError: its parameters are wrong; ``check`` tells what of them.
    """
    search = sweep_of(spec).search
    entry = SEARCHERS.get(search.name)
    return entry.build(entry.params.model_validate(search.params), spec)


def trial_scheduler_of(spec: JobSpec) -> TrialScheduler:
    """The trial scheduler of a sweep.

    Raises:
        NotFoundError: there is none of that name here.
        ValidationError: its parameters are wrong; ``check`` tells what of them.
        UsageError: the spec has no objective.
    """
    chosen = sweep_of(spec).trial_scheduler
    entry = TRIAL_SCHEDULERS.get(chosen.name)
    return entry.build(entry.params.model_validate(chosen.params), spec)


def _problems(kind: _Kind, sweep: Mapping[str, Any], spec: JobSpec | None) -> Iterator[Problem]:
    node = sweep.get(kind.path.rpartition(".")[2], {})
    name = node.get("name", kind.section.model_fields["name"].default) if isinstance(node, Mapping) else None
    if not isinstance(name, str):
        return
    try:
        entry: Entry[Any] = kind.table.get(name)
    except NotFoundError as error:
        yield Problem(f"{kind.path}.name", error.message, value=name, hint=error.hint)
        return
    given = {key: value for key, value in node.items() if key not in kind.section.model_fields}
    try:
        params: Params = entry.params.model_validate(given)
    except ValidationError as error:
        yield from problems_of(error, entry.params, kind.path, kind.section.model_fields)
        return
    if spec is not None:
        yield from entry.problems(params, spec)
