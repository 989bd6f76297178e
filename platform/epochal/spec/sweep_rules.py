"""The rules of the ``sweep`` block; ``rules.SWEEP_RULES`` lists them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import isfinite
from pathlib import PurePath
from typing import Any

from pydantic import ValidationError

from epochal.errors import Problem, did_you_mean
from epochal.spec.corners import in_order, is_in, same
from epochal.spec.fields import closed, known_paths
from epochal.spec.job import JobSpec
from epochal.spec.problems import field_problems
from epochal.spec.space import ChoiceOf, Constant, Entry, IntUniform, Ranged
from epochal.spec.tree import overlaps, placed

ADD_OBJECTIVE = "add `objective: {metric: val/accuracy, mode: max}`"
SWEPT = ("model", "data", "task", "train")
"""The sections that trials of one sweep may differ in; the others belong to the job as a whole."""
LENGTHS = ("train.epochs", "train.steps")
_WEIGHTS = "train.init_from"


def needs_an_objective(spec: JobSpec) -> Iterator[Problem]:
    if spec.sweep is not None and spec.objective is None:
        yield Problem("sweep", "needs an objective to compare trials by", hint=ADD_OBJECTIVE)


def a_fixed_number_of_workers(spec: JobSpec) -> Iterator[Problem]:
    workers = spec.resources.workers
    if spec.sweep is not None and not isinstance(workers, int):
        message = "a trial of a sweep has a fixed number of workers, and this is a range"
        hint = f"set resources.workers to {workers.min}; the sweep takes as many times that as there is room for"
        yield Problem("resources.workers", message, hint=hint)


def packs_have_one_worker(spec: JobSpec) -> Iterator[Problem]:
    if spec.sweep is not None and isinstance(spec.sweep.pack, int) and spec.resources.max_workers > 1:
        message = f"a pack trains in one worker, and a trial has {spec.resources.max_workers}"
        yield Problem("sweep.pack", message, value=spec.sweep.pack, hint="remove it, or set resources.workers to 1")


def trials_export_their_last_weights(spec: JobSpec) -> Iterator[Problem]:
    """By their last validation they are compared, and those of a best step are not kept."""
    searched = {*_searched(spec), *(path for point in _points(spec) for path in point)}
    if spec.sweep is not None and (spec.train.export == "best" or "train.export" in searched):
        message = "trials of a sweep are compared by their last weights, and keep no others"
        hint = "remove it, and use it in a job that trains the best point"
        yield Problem("train.export", message, value="best", hint=hint)


def paths_exist(spec: JobSpec) -> Iterator[Problem]:
    for path, entry in _searched(spec).items():
        if (problem := _path_problem(path, f"sweep.space.{path}")) is not None:
            yield problem
        elif _is_section(path) and isinstance(entry, Ranged):
            hint = "search one of its fields, or use choice"
            yield Problem(f"sweep.space.{path}", f"{path} is a section, not a number", hint=hint)
    for index, point in enumerate(_points(spec)):
        found = (_path_problem(path, f"sweep.points.{index}.{path}") for path in point)
        yield from (problem for problem in found if problem is not None)


def paths_apart(spec: JobSpec) -> Iterator[Problem]:
    yield from _overlapping(list(_searched(spec)), "sweep.space", "is searched too")
    for index, point in enumerate(_points(spec)):
        paths = [*point, *(path for path in _searched(spec) if path not in point)]
        yield from _overlapping(paths, f"sweep.points.{index}", "is in the point or searched too")


def bounds_in_order(spec: JobSpec) -> Iterator[Problem]:
    """A range has room between its bounds, and a normal one within four sigma of its mean."""
    for path, entry in _searched(spec).items():
        if not isinstance(entry, Ranged):
            continue
        low, high = entry.bounds
        if low >= high:
            given = "high" if getattr(entry, "high", None) is not None else "low"
            message = f"expected more than low ({low:g}), got {high:g}"
            if given == "low":
                message = f"expected less than {high:g}, four sigma above the mean, got {low:g}"
            yield Problem(f"sweep.space.{path}.{given}", message, value=getattr(entry, given))
        elif not isfinite(high - low):
            yield Problem(f"sweep.space.{path}", f"expected a narrower range, got {low:g} to {high:g}")
        elif isinstance(entry, IntUniform) and entry.log and entry.low < 1:
            message = f"expected at least 1 on a log scale, got {entry.low}"
            yield Problem(f"sweep.space.{path}.low", message, value=entry.low)


def steps_fit(spec: JobSpec) -> Iterator[Problem]:
    for path, entry in _searched(spec).items():
        if not isinstance(entry, Ranged) or entry.spacing is None or entry.bounds[0] >= entry.bounds[1]:
            continue
        count = entry.count()
        if count is not None and count < 2:
            message = f"expected at most high - low ({entry.bounds[1] - entry.bounds[0]:g}), got {entry.spacing:g}"
            yield Problem(f"sweep.space.{path}.step", message, value=entry.spacing)


def conditions_can_hold(spec: JobSpec) -> Iterator[Problem]:
    space = _searched(spec)
    ordered = in_order(space)
    for path, entry in space.items():
        wrong = [problem for other in entry.when if (problem := _condition_problem(path, other, space)) is not None]
        yield from wrong
        if not wrong and path not in ordered and all(other in space for other in entry.when):
            message = f"{path} depends on itself, by way of {' and '.join(entry.when)}"
            yield Problem(f"sweep.space.{path}.when", message, hint="remove one of the conditions")


def values_fit(spec: JobSpec) -> Iterator[Problem]:
    """Each end of a range and each choice must be a value that its field takes."""
    stored = spec.model_dump(mode="json", exclude_unset=True)
    for path, entry in _searched(spec).items():
        if _path_problem(path, path) is not None or (_is_section(path) and isinstance(entry, Ranged)):
            continue
        for place, value in entry.ends():
            told = _refused(stored, path, value)
            if told is not None:
                yield Problem(
                    ".".join(filter(None, ("sweep.space", path, place))),
                    f"{path}: {told}",
                    value=value,
                    hint=_other_distribution(entry, told, place),
                )
                break  # the other ends are wrong for the same reason as a rule
    for index, point in enumerate(_points(spec)):
        for path, value in point.items():
            if _path_problem(path, path) is None and (told := _refused(stored, path, value)) is not None:
                yield Problem(f"sweep.points.{index}.{path}", f"{path}: {told}", value=value)


def weights_are_found(spec: JobSpec) -> Iterator[Problem]:
    """A name, or a path from the spec's folder, is looked up once for the whole job, not for each trial."""
    given = {f"sweep.points.{index}.{_WEIGHTS}": point.get(_WEIGHTS) for index, point in enumerate(_points(spec))}
    if (entry := _searched(spec).get(_WEIGHTS)) is not None:
        given |= {f"sweep.space.{_WEIGHTS}.{place}": value for place, value in entry.ends()}
    for place, value in given.items():
        if isinstance(value, str) and not PurePath(value).is_absolute():
            told = f"expected an absolute path where trials differ in it, got {value!r}"
            yield Problem(place, told, value=value, hint="give the whole path of the weights, or of the job's folder")


def points_meet_conditions(spec: JobSpec) -> Iterator[Problem]:
    """What is searched under a condition is given only in a point that meets it."""
    space = _searched(spec)
    for index, point in enumerate(_points(spec)):
        for problem in unmet_conditions(space, point):
            yield replace(problem, path=f"sweep.points.{index}.{problem.path}")


def unmet_conditions(space: Mapping[str, Entry], point: Mapping[str, Any]) -> Iterator[Problem]:
    """What is searched under a condition that ``point`` does not meet, and given in it all the same."""
    for path in point:
        if path in space and not is_in(space[path], point):
            wanted = " and ".join(f"{other} is {_listed(values)}" for other, values in space[path].when.items())
            message = f"is searched only where {wanted}, and the point does not say so"
            yield Problem(path, message, hint=f"give it too, or remove {path}")


def no_more_points_than_trials(spec: JobSpec) -> Iterator[Problem]:
    if spec.sweep is not None and len(spec.sweep.points) > spec.sweep.trials:
        message = f"expected at least {len(spec.sweep.points)}, for as many points are given, got {spec.sweep.trials}"
        yield Problem("sweep.trials", message, value=spec.sweep.trials)


def rungs_below_the_length(spec: JobSpec) -> Iterator[Problem]:
    """The first rung is in the unit of the training's length, and shorter."""
    if spec.sweep is None:
        return
    chosen = spec.sweep.trial_scheduler
    first, path = chosen.min, "sweep.trial_scheduler.min"
    unit = spec.train.unit
    length = spec.train.epochs if unit == "epochs" else spec.train.steps
    if chosen.name == "none":
        if "min" in chosen.model_fields_set:
            told = "without a trial scheduler trials are not compared"
            yield Problem(path, told, value=str(first), hint="remove it")
    elif first.unit != unit:
        message = f"expected {unit}, as train has it, got {first}"
        yield Problem(path, message, value=str(first), hint=f"such as {'1ep' if unit == 'epochs' else '100steps'}")
    elif length is not None and first.value >= length:
        message = f"expected less than the {length} {unit} that a trial trains, got {first}"
        yield Problem(path, message, value=str(first))


def _searched(spec: JobSpec) -> dict[str, Entry]:
    return spec.sweep.searched if spec.sweep is not None else {}


def _points(spec: JobSpec) -> list[dict[str, Any]]:
    return spec.sweep.points if spec.sweep is not None else []


def _path_problem(path: str, where: str) -> Problem | None:
    """Why trials cannot differ in ``path``; None where they can."""
    steps = path.split(".")
    if (length := next((one for one in LENGTHS if overlaps(tuple(one.split(".")), tuple(steps))), None)) is not None:
        has = "is" if path == length else "has"
        message = f"trials are compared at equal lengths, and {path} {has} how long they train"
        return Problem(where, message, hint="set it outside the sweep; a trial scheduler ends the bad ones early")
    if steps[0] in JobSpec.model_fields and steps[0] not in SWEPT:
        message = f"{steps[0]} belongs to the job as a whole and cannot differ between trials"
        return Problem(where, message, hint=f"a sweep can search {', '.join(SWEPT)}")
    if path not in known_paths() and closed(steps):
        swept = tuple(known for known in known_paths() if known.startswith(SWEPT))
        hint = did_you_mean(path, swept) or f"a sweep can search {', '.join(SWEPT)}"
        return Problem(where, f"the spec has no field {path}", hint=hint)
    return None


def _is_section(path: str) -> bool:
    return any(known.startswith(f"{path}.") for known in known_paths())


def _overlapping(paths: list[str], where: str, told: str) -> Iterator[Problem]:
    for one in paths:
        for other in paths:
            if len(one) < len(other) and overlaps(tuple(one.split(".")), tuple(other.split("."))):
                yield Problem(f"{where}.{other}", f"is a part of {one}, which {told}", hint="remove one")


def _condition_problem(path: str, other: str, space: Mapping[str, Entry]) -> Problem | None:
    where, entry = f"sweep.space.{path}.when.{other}", space.get(other)
    if entry is None:
        hint = did_you_mean(other, tuple(one for one in space if one != path))
        return Problem(where, f"{other} is not searched", hint=hint)
    if not isinstance(entry, ChoiceOf | Constant):
        hint = f"search {other} with choice, or remove the condition"
        return Problem(where, f"expected a path that is searched with choice, and {other} is a range", hint=hint)
    takes = [value for _, value in entry.ends()]
    wrong = [value for value in space[path].when[other] if not any(same(value, one) for one in takes)]
    if wrong:
        return Problem(where, f"{other} never is {_listed(wrong)}", value=wrong[0], hint=f"it is {_listed(takes)}")
    return None


def _listed(values: list[Any]) -> str:
    shown = [str(value) for value in values[:10]]
    return " or ".join(shown) + (" or another" if len(values) > len(shown) else "")


def _other_distribution(entry: Entry, told: str, place: str) -> str:
    if "whole number" in told and isinstance(entry, Ranged):
        return "use dist: int"
    return "" if place else "it is drawn from within four sigma of the mean: set low and high, or a smaller sigma"


def _refused(stored: dict[str, Any], path: str, value: Any) -> str | None:
    """What is wrong with ``value`` at ``path`` of the spec; None where nothing is."""
    try:
        JobSpec.model_validate(placed(stored, {path: value}))
    except ValidationError as error:
        steps = tuple(path.split("."))
        found = [finding for finding in field_problems(error) if overlaps(finding.path, steps)]
        return found[0].problem.message if found else None
    return None
