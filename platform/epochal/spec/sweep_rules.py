"""The rules of the ``sweep`` block; ``rules.RULES`` lists them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from epochal.errors import Problem, did_you_mean
from epochal.spec.fields import closed, known_paths
from epochal.spec.job import JobSpec
from epochal.spec.problems import field_problems
from epochal.spec.sweep import ChoiceOf, Distribution, IntUniform, LogUniform
from epochal.spec.tree import overlaps

ADD_OBJECTIVE = "add `objective: {metric: val/accuracy, mode: max}`"
SWEPT = ("model", "data", "task", "train")
"""The sections that trials of one sweep may differ in; the others belong to the job as a whole."""


def needs_an_objective(spec: JobSpec) -> Iterator[Problem]:
    if spec.sweep is not None and spec.objective is None:
        yield Problem("sweep", "needs an objective to compare trials by", hint=ADD_OBJECTIVE)


def paths_exist(spec: JobSpec) -> Iterator[Problem]:
    yield from (problem for path, space in _space(spec) if (problem := _path_problem(path, space)))


def paths_apart(spec: JobSpec) -> Iterator[Problem]:
    paths = [path for path, _ in _space(spec)]
    for one in paths:
        for other in paths:
            if one != other and overlaps(tuple(one.split(".")), tuple(other.split("."))) and len(one) < len(other):
                yield Problem(f"sweep.space.{other}", f"is a part of {one}, which is searched too", hint="remove one")


def bounds_in_order(spec: JobSpec) -> Iterator[Problem]:
    for path, space in _space(spec):
        if not isinstance(space, ChoiceOf) and space.low >= space.high:
            message = f"expected more than low ({space.low:g}), got {space.high:g}"
            yield Problem(f"sweep.space.{path}.high", message, value=space.high)
        if isinstance(space, IntUniform) and space.log and space.low < 1:
            yield Problem(
                f"sweep.space.{path}.low", f"expected at least 1 on a log scale, got {space.low}", value=space.low
            )


def steps_fit(spec: JobSpec) -> Iterator[Problem]:
    for path, space in _space(spec):
        step = getattr(space, "step", None)
        if step is None or isinstance(space, ChoiceOf | LogUniform) or space.low >= space.high:
            continue
        if step > space.high - space.low:
            message = f"expected at most high - low ({space.high - space.low:g}), got {step:g}"
            yield Problem(f"sweep.space.{path}.step", message, value=step)
        elif isinstance(space, IntUniform) and space.log and step != 1:
            yield Problem(f"sweep.space.{path}.step", "a log scale has no steps", value=step, hint="remove step or log")


def values_fit(spec: JobSpec) -> Iterator[Problem]:
    """Each end of a range and each choice must be a value that its field takes."""
    stored = spec.model_dump(mode="json", exclude={"sweep"}, exclude_unset=True)
    for path, space in _space(spec):
        if _path_problem(path, space):
            continue
        for place, value in _candidates(space):
            told = _refused(stored, path.split("."), value)
            if told is not None:
                hint = "use dist: int" if "whole number" in told and not isinstance(space, ChoiceOf) else ""
                yield Problem(f"sweep.space.{path}.{place}", f"{path}: {told}", value=value, hint=hint)
                break


def grid_is_finite(spec: JobSpec) -> Iterator[Problem]:
    for path, space in _space(spec):
        stepped = isinstance(space, ChoiceOf) or getattr(space, "step", None) is not None
        if spec.sweep is not None and spec.sweep.search.name == "grid" and not stepped:
            yield Problem(f"sweep.space.{path}", "a grid needs values to go through, and this is a continuous range",
                          hint="use choice, give a step, or search with random or tpe")  # fmt: skip


def pbt_changes_training_only(spec: JobSpec) -> Iterator[Problem]:
    """A population copies weights between trials, so they must all have the same model and data."""
    for path, _ in _space(spec):
        if spec.sweep is not None and spec.sweep.trial_scheduler.name == "pbt" and not path.startswith("train."):
            message = f"pbt changes trials while they train, and {path} cannot change then"
            yield Problem(f"sweep.space.{path}", message, hint="search fields of train, such as train.optimizer.lr")


def pbt_has_a_population(spec: JobSpec) -> Iterator[Problem]:
    if spec.sweep is not None and spec.sweep.trial_scheduler.name == "pbt" and spec.sweep.trials < 2:
        message = f"pbt needs a population of at least 2, got {spec.sweep.trials}"
        yield Problem("sweep.trials", message, value=spec.sweep.trials)


def rungs_below_the_length(spec: JobSpec) -> Iterator[Problem]:
    if spec.sweep is None or spec.sweep.trial_scheduler.name == "none":
        return
    first = spec.sweep.trial_scheduler.min
    if first.unit == "seconds":
        yield Problem("sweep.trial_scheduler.min", f"expected epochs or steps, got {first}", value=str(first))
        return
    length = spec.train.epochs if first.unit == "epochs" else spec.train.steps
    if length is not None and first.value >= length:
        message = f"expected less than the {length} {first.unit} that a trial trains, got {first}"
        yield Problem("sweep.trial_scheduler.min", message, value=str(first))


def _space(spec: JobSpec) -> list[tuple[str, Distribution]]:
    return list(spec.sweep.space.items()) if spec.sweep is not None else []


def _path_problem(path: str, space: Distribution) -> Problem | None:
    """Why ``path`` cannot be searched; None where it can."""
    where, steps = f"sweep.space.{path}", path.split(".")
    if steps[0] in JobSpec.model_fields and steps[0] not in SWEPT:
        message = f"{steps[0]} belongs to the job as a whole and cannot differ between trials"
        return Problem(where, message, hint=f"a sweep can search {', '.join(SWEPT)}")
    if path not in known_paths() and closed(steps):
        swept = tuple(known for known in known_paths() if known.startswith(SWEPT))
        hint = did_you_mean(path, swept) or f"a sweep can search {', '.join(SWEPT)}"
        return Problem(where, f"the spec has no field {path}", hint=hint)
    if _is_section(path) and not isinstance(space, ChoiceOf):
        return Problem(where, f"{path} is a section, not a number", hint="search one of its fields, or use choice")
    return None


def _is_section(path: str) -> bool:
    return any(known.startswith(f"{path}.") for known in known_paths())


def _candidates(space: Distribution) -> Iterator[tuple[str, Any]]:
    if isinstance(space, ChoiceOf):
        yield from ((f"choice.{index}", value) for index, value in enumerate(space.choice))
        return
    yield "low", space.low
    yield "high", space.high


def _refused(stored: dict[str, Any], steps: list[str], value: Any) -> str | None:
    """What is wrong with ``value`` at ``steps`` of the spec; None where nothing is."""
    changed = _with(stored, steps, value)
    try:
        JobSpec.model_validate(changed)
    except ValidationError as error:
        found = [finding for finding in field_problems(error) if overlaps(finding.path, tuple(steps))]
        return found[0].problem.message if found else None
    return None


def _with(mapping: Any, steps: list[str], value: Any) -> Any:
    if not steps:
        return value
    below = mapping if isinstance(mapping, dict) else {}
    return {**below, steps[0]: _with(below.get(steps[0]), steps[1:], value)}
