"""What spec, data and task tell before a training: the same for `plan`, `submit` and each worker at its start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from epochal.catalog.data import Batch, DataInfo, LoadedData, Split, TensorSplit, targets_of
from epochal.catalog.environment import Acts
from epochal.catalog.lean_torchmetrics import metrics_of
from epochal.catalog.losses import balanced, balanced_ones
from epochal.catalog.schedules import steps_of
from epochal.catalog.task import ChecksTargets, TakesStock, Task, TellsMetrics
from epochal.errors import CodeError, Problem, SpecError, some
from epochal.redaction import named
from epochal.spec.job import JobSpec
from epochal.spec.no_epochs import no_epochs
from epochal.spec.section import is_import_path
from epochal.spec.tree import overlaps
from epochal.spec.wanted_metrics import WAITING, Given, unmet
from epochal.training.data_summary import ClassCount, DataSummary
from epochal.training.sampler import sampler_of

_LENGTHS = [
    tuple(path.split("."))
    for path in (
        "data", "train.epochs", "train.steps", "train.global_batch_size", "train.drop_last", "train.lr_schedule",
        "train.average",
    )
]  # fmt: skip
"""What decides how long a training is, and what is at a step of it."""

_SMALL = (torch.int8, torch.int16, torch.int32)
"""Whole numbers that torch's losses take for no classes."""


@dataclass(frozen=True)
class Checked:
    """``left_out`` are metrics (without ``val/``) that cannot be computed on the validation data there is, each with
    the reason; ``left_out_of_test`` those that cannot be on the test data; ``notes`` is what a person should know
    beforehand."""

    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out_of_test: Mapping[str, str] = field(default_factory=dict)


def check(spec: JobSpec, data: LoadedData, task: Task) -> Checked:
    """
    Raises:
        SpecError: with everything for which the training would end, or come to nothing.
        CodeError: the user's task cannot make its metrics.
    """
    left_out = _unmeasurable(data.validation, task)
    of_test = {name: why.replace("validation ", "") for name, why in _unmeasurable(data.test, task).items()}
    # What a target may be, a task of the user's own decides: labels to be ignored, say, or none.
    decides = not isinstance(task, TellsMetrics)
    targets = () if decides else _wrong_targets(data, task)
    train, every = spec.train, spec.checkpoint.every
    streams = data.endless
    size = no_epochs(train.epochs, train.validate_every, every) if streams else _too_few(spec, data)
    fields = (*_absent_fields(data), *_types_apart(spec, data))
    wrong = (
        *behind_the_end(spec, data),
        *fields,
        *_wrong_metrics(spec, data, task, left_out),
        *_apart(spec, data, task),
    )
    problems = [*size, *targets, *wrong]
    if problems:
        raise SpecError("the job spec", tuple(problems))
    told = [f"val/{name} is left out: {why}" for name, why in left_out.items()]
    told += [f"test/{name} is left out: {why}" for name, why in of_test.items()]
    return Checked(left_out, (*told, *_notes(spec, data), *(() if decides else _unseen(data))), of_test)


def summarized(dataset: str, data: LoadedData, notes: Sequence[str] = ()) -> DataSummary:
    """What the ``data`` of this name was taken for, from what is known of it without reading samples."""
    classes = _classes(data)
    return DataSummary(
        dataset=dataset,
        source=data.source,
        digest=data.digest,
        train_samples=data.train_samples,
        validation_samples=len(data.validation) if data.validation is not None else 0,
        test_samples=len(data.test) if data.test is not None else 0,
        # A class that is counted is not told twice.
        understood=tuple(one for one in data.understood if not classes or one.taken_for != "class"),
        classes=classes,
        notes=tuple(notes),
    )


def _classes(data: LoadedData) -> tuple[ClassCount, ...]:
    target = data.info.target
    counts: list[list[int]] = []
    if target.shape or target.classes is None:
        return ()
    for split in (data.train, data.validation, data.test):
        values = targets_of(split) if split is not None else torch.empty(0)
        if values is None:
            return ()
        known = values[(values >= 0) & (values < target.classes)]
        counts.append(torch.bincount(known.long(), minlength=target.classes).tolist())
    names = data.classes if len(data.classes) == target.classes else map(str, range(target.classes))
    return tuple(map(ClassCount, names, *counts))


def _too_few(spec: JobSpec, data: LoadedData) -> Iterator[Problem]:
    samples, workers = len(data.train), spec.resources.max_workers
    if not samples:
        yield Problem("data", "there are no training samples")
    elif samples < workers:
        message = f"expected at most {samples}, a training sample for each, got {workers}"
        yield Problem("resources.workers", message, value=workers)


def behind_the_end(spec: JobSpec, data: LoadedData) -> Iterator[Problem]:
    """Numbers of steps that are more than the epochs have; those beside ``train.steps`` have rules of the spec."""
    train, schedule, average = spec.train, spec.train.lr_schedule, spec.train.average
    total = _total_steps(spec, data)
    if train.epochs is None or data.endless or not total:
        return
    start = average.start if average is not None else 0.0
    for path, steps in (("train.lr_schedule.warmup", schedule.warmup), ("train.average.start", start)):
        if steps >= max(1, total):
            told = f"expected fewer than the {total:,} steps of train.epochs ({train.epochs:,}), got {steps:g}"
            yield Problem(path, told, value=steps)


def _total_steps(spec: JobSpec, data: LoadedData) -> int:
    """0 where there is nothing to train on, or the trials of a sweep differ in it: each is looked at by itself."""
    searched = spec.sweep.space if spec.sweep is not None else ()
    differ = any(overlaps(tuple(path.split(".")), length) for path in searched for length in _LENGTHS)
    return 0 if differ or not len(data.train) else sampler_of(data, spec).total_steps(spec.train)


def _apart(spec: JobSpec, data: LoadedData, task: Task) -> Iterator[Problem]:
    """What does not go with a model that acts in each worker by itself, nor with a task that writes into it."""
    environment, resources, size = data.info.environment, spec.resources, spec.train.global_batch_size
    if resources.strategy == "fsdp" and isinstance(task, TakesStock) and resources.max_workers > 1:
        told = "the task looks at whole weights between two steps, and fsdp shards them"
        yield Problem("resources.strategy", told, value="fsdp", hint="use ddp")
    if spec.train.compile and isinstance(task, TakesStock):
        told = "compiles the model's own forward, and the task calls its parts, between two steps too"
        yield Problem("train.compile", told, value=True, hint="remove it")
    if environment is None:
        return
    if not isinstance(task, Acts):
        told = "the data is an environment, and this task does not act"
        yield Problem("task.name", told, hint="use reinforcement-learning")
    if size % environment.lanes:
        told = f"expected a multiple of the {environment.lanes} lanes of the environment, got {size}"
        yield Problem("train.global_batch_size", told, value=size)
    counts = range(resources.min_workers, resources.max_workers + 1)
    if odd := [str(workers) for workers in counts if environment.lanes % workers]:
        told = f"the {environment.lanes} lanes of the environment cannot be shared out evenly among {some(odd)} workers"
        hint = "use another number, or other data.params.lanes"
        yield Problem("resources.workers", told, value=resources.max_workers, hint=hint)
    if spec.data.loader_workers:
        told = "loader processes have no model that could act: environments are played in the workers"
        yield Problem("data.loader_workers", told, value=spec.data.loader_workers, hint="use 0")


def _absent_fields(data: LoadedData) -> Iterator[Problem]:
    """As far as they are known without reading samples."""
    for part, split in data.splits():
        if isinstance(split, TensorSplit) and (absent := data.info.fields.keys() - split.tensors.keys()):
            told = (
                f"DataInfo has the fields {some(sorted(absent))}, and the {part} samples have {some([*split.tensors])}"
            )
            yield Problem("data", told, hint="give a tensor for each field")


def _types_apart(spec: JobSpec, data: LoadedData) -> Iterator[Problem]:
    """As far as they are known without reading samples."""
    for part, split in data.splits():
        if isinstance(split, TensorSplit):
            yield from other_types(spec, data.info, part, split.tensors)


def other_types(spec: JobSpec, info: DataInfo, part: str, samples: Batch) -> Iterator[Problem]:
    """Where ``samples`` are of another type than ``info`` says. A model or a task of the user's own may convert them;
    with those of the catalog torch would tell of two types that do not go together, and not whose they are."""
    own_task = spec.task is not None and is_import_path(spec.task.name)
    inputs = () if is_import_path(spec.model.name) else info.inputs
    for name, one in info.fields.items():
        found, said = samples[name].dtype if name in samples else one.dtype, one.dtype
        if name in inputs:  # of 16 bits is what a training in 16 bits converts
            wrong = found.is_floating_point != said.is_floating_point or (found == torch.float64 != said)
        else:
            wrong = name == "target" and not own_task and said == torch.int64 and found in _SMALL
        if wrong:
            told = f"the {name} of the {part} samples is of {found}, and DataInfo says {said}"
            yield Problem("data", told, hint=f"convert it: {name}.to({said})")


def _notes(spec: JobSpec, data: LoadedData) -> Iterator[str]:
    samples, batch = len(data.train), spec.train.global_batch_size
    if data.endless:
        yield f"the data is a stream: what is told of its samples beforehand is that of {samples:,}"
    elif samples < batch:
        yield f"train.global_batch_size is {batch:,}, and there are {samples:,} training samples: each step takes all"
    yield from _balance(spec, data)
    yield from _unreached(spec, data)
    workers = spec.resources.max_workers
    for part, split in data.splits():
        if part != "train" and 0 < len(split) < workers:
            yield f"there are {len(split)} {part} samples for {workers} workers: each goes through all of them"
    if spec.sweep is not None and data.test is not None:
        yield "the test samples are left alone: a sweep chooses by validation; train its best point to measure them"


def _unreached(spec: JobSpec, data: LoadedData) -> Iterator[str]:
    """Where the learning rate was to change behind the end of the training."""
    schedule, total = spec.train.lr_schedule, _total_steps(spec, data)
    left = total - (steps_of(schedule.warmup, total) if schedule.warmup else 0)
    for name in ("every", "milestones", "first") if total else ():
        given = schedule.params.get(name)
        steps = [one for one in (given if isinstance(given, list) else [given]) if isinstance(one, int | float)]
        if late := [f"{one:g}" for one in steps if one >= max(1, left)]:
            after = " after the warm-up" if left < total else ""
            yield f"train.lr_schedule.{name}: step {some(late)} is never reached: there are {left:,} steps{after}"


def _balance(spec: JobSpec, data: LoadedData) -> Iterator[str]:
    """The weights that were computed of the training samples."""
    loss = spec.task.params.get("loss") if spec.task is not None else None
    for name, what, weights in (
        ("class_weights", "a sample of each class", balanced(data.info.target.counts)),
        ("pos_weight", "a 1 of each label", balanced_ones(data.info.target.labels)),
    ):
        if isinstance(loss, Mapping) and loss.get(name) == "balanced" and weights:
            names = data.classes if len(data.classes) == len(weights) else map(str, range(len(weights)))
            told = (f"{one} {weight:.4g}" for one, weight in zip(names, weights, strict=True))
            yield f"{name}: balanced counts {what} for: {', '.join(told)}"


def _unseen(data: LoadedData) -> Iterator[str]:
    train, target = targets_of(data.train), data.info.target
    for part, split in data.splits():
        held_out = targets_of(split)
        if part == "train" or target.classes is None or target.shape or train is None or held_out is None:
            continue
        if len(rows := (~torch.isin(held_out, train)).flatten().nonzero().flatten()):
            told = f"{len(rows):,} of {len(held_out):,} {part} samples are of classes that no training sample has"
            yield f"{told}: sample {rows[0]} is of class {held_out.flatten()[rows[0]]}"


def _wrong_targets(data: LoadedData, task: Task) -> Iterator[Problem]:
    """As far as the targets are known without reading samples."""
    target = data.info.target
    expected = "finite numbers" if target.classes is None else f"classes from 0 to {target.classes - 1}"
    wrong_rows: Callable[[Tensor], Tensor] = target.wrong_rows
    if isinstance(task, ChecksTargets):
        expected, wrong_rows = task.suitable, task.unsuitable
    for part, split in data.splits():
        values = targets_of(split)
        if values is None or not len(values):
            continue
        if len(rows := wrong_rows(values)):
            found = values[rows[0]].tolist()
            count = f"{len(rows):,} of {len(values):,} targets of the {part} samples"
            message = f"{count} are not {expected}: sample {rows[0]} has {found}"
            yield Problem("data", message, hint="mend them, or drop the samples")
    train = targets_of(data.train)
    if target.classes is not None and not target.shape and train is not None and len(torch.unique(train)) == 1:
        name = next((f" {one.name}" for one in data.understood if one.taken_for.startswith("target")), "")
        hint = "is it the right column or file? classification needs two classes or more"
        yield Problem("data", f"the target{name} has one class: there is nothing to tell apart", hint=hint)


def _unmeasurable(split: Split | None, task: Task) -> Mapping[str, str]:
    if not isinstance(task, TellsMetrics) or split is None:
        return {}
    told = task.unmeasurable(len(split), targets_of(split))
    return {name: why for name, why in told.items() if name in task.metric_names}


def _wrong_metrics(spec: JobSpec, data: LoadedData, task: Task, left_out: Mapping[str, str]) -> Iterator[Problem]:
    sections = (spec.objective, spec.train.early_stopping)
    metrics = [None if section is None else section.metric for section in sections]
    metrics.append(spec.train.lr_schedule.params.get("metric"))
    absent = "" if data.validation else "this dataset has no sample for it"
    if absent and spec.data.params.get("validation") == 0:
        absent = "data.params.validation is 0"
    known = task.known_metrics if isinstance(task, TellsMetrics) else ()
    wanted = {path: metric for path, metric in zip(WAITING, metrics, strict=True) if metric is not None}
    return unmet(wanted, Given(_named(task), known, absent, left_out))


def _named(task: Task) -> Sequence[str] | None:
    """The names of the task's metrics; None where only computing them tells, as a metric may give several values."""
    if isinstance(task, TellsMetrics):
        return task.metric_names
    try:
        metrics = metrics_of(task)
        kinds = {type(metric) for metric in metrics.values(copy_state=False)}
    except Exception as error:
        name = type(task).__name__
        told = f"task.name: {name}.metrics() failed: {named(error)}"
        raise CodeError(told, "it returns a torchmetrics.MetricCollection") from error
    plain = all(kind.__module__.startswith("torchmetrics.") and ".wrappers." not in kind.__module__ for kind in kinds)
    return [str(name) for name in metrics] if plain else None
