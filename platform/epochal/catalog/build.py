"""What a job spec names, built: the model, the data, the task, the optimizer, the learning rate.

A name is looked up in the catalog, unless it is an import path ``module:attribute`` of the user's own code.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from epochal.catalog.architectures import ARCHITECTURES
from epochal.catalog.data import DataInfo, LoadedData, targets_of
from epochal.catalog.datasets import DATASETS
from epochal.catalog.datasets.files import naming_warnings, reading
from epochal.catalog.entry import Group
from epochal.catalog.optimizers import OPTIMIZERS, is_sharded
from epochal.catalog.providers import build as provided
from epochal.catalog.providers import is_provided
from epochal.catalog.schedules import LR_SCHEDULES, steps_of
from epochal.catalog.task import Task
from epochal.catalog.tasks import TASKS
from epochal.errors import CodeError, EpochalError, NotFoundError, Problem, SpecError, did_you_mean, some
from epochal.own_code import place
from epochal.redaction import named, said
from epochal.spec.job import LrSchedule
from epochal.spec.job import Optimizer as OptimizerChoice
from epochal.spec.params import validated
from epochal.spec.section import Component, is_import_path

BuiltT = TypeVar("BuiltT")


def build_model(model: Component, info: DataInfo) -> nn.Module:
    """The module, on torch's default device (meta too), with random weights from torch's default generator.

    A class of the user's own is called with its ``params``, and with ``info`` where it has such a parameter.

    Raises:
        NotFoundError: no architecture has that name.
        SpecError: the parameters are wrong, or do not fit the data.
        CodeError: the user's class cannot be imported, makes no ``nn.Module``, or one that waits for its first batch.
    """
    if is_provided(model.name):
        return _placed("model", lambda: provided(model.name, model.params, info))
    if is_import_path(model.name):
        built = _called(nn.Module, model, "model", info=info)
        waiting = [name for name, one in (*built.named_parameters(), *built.named_buffers()) if is_lazy(one)]
        if waiting:
            raise CodeError(
                f"model.name: {model.name!r} has no size for {some(waiting)} before its first batch",
                "give sizes in place of nn.Lazy modules: info.input.shape is the shape of a sample",
            )
        return built
    entry = ARCHITECTURES.get(model.name)
    params = validated(entry.params, model.params, "model.params")

    def built_in() -> nn.Module:
        _refuse_nothing(info)
        return entry.build(params, info)

    return _placed("model", built_in)


def _refuse_nothing(info: DataInfo) -> None:
    """No architecture of the catalog has a meaning for these; torch would tell of sizes in one of its layers."""
    for name, one in info.fields.items():
        beside = name in info.inputs and len(info.inputs) > 1  # a table may have categories alone, and no numbers
        if (0 in one.shape and not beside) or one.classes == 0:
            told = f"of no {'classes' if one.classes == 0 else 'values'}"
            raise EpochalError(f"the data's {name} is {told}: its shape is {one.shape}", "mend DataInfo of the dataset")
    for name in info.inputs:
        if info.fields[name].dtype == torch.float64:
            told = f"the data's {name} is of torch.float64, and a model of the catalog takes torch.float32"
            raise EpochalError(told, f"convert it: {name}.float(), and Field(..., torch.float32)")
    if info.input.shape == () and info.input.dtype.is_floating_point:
        told = "the data's input is one number without a dimension, of shape ()"
        raise EpochalError(told, "give it one: (samples, 1), and Field((1,))")


def load_data(data: Component, folder: Path) -> LoadedData:
    """Load the dataset; relative paths in its parameters are meant from ``folder``, the spec's own.

    A function of the user's own is called with its ``params``, and with ``folder`` where it has such a parameter.

    Raises:
        NotFoundError: no dataset has that name.
        SpecError: the parameters are wrong, or the data they name is missing or unusable.
        CodeError: the user's function cannot be imported or returns no ``LoadedData``.
    """
    if is_import_path(data.name):
        return _counted(_called(LoadedData, data, "data", folder=folder))
    entry = DATASETS.get(data.name)
    params = validated(entry.params, data.params, "data.params")
    path = getattr(params, "path", None)
    source = folder / path if path else f"the dataset {data.name!r}"

    def read() -> LoadedData:
        with reading(source), naming_warnings(source):
            return _counted(entry.build(params, folder))

    return _placed("data", read)


def _counted(data: LoadedData) -> LoadedData:
    """With the training samples of each class, of a sample or a pixel, or those of zeros and ones, where they are known
    without reading any."""
    target, values = data.info.target, targets_of(data.train)
    if (
        target.classes is None
        and len(target.shape) < 2
        and values is not None
        and ((values == 0) | (values == 1)).all()
    ):
        ones = values.reshape(len(values), -1).sum(0).long().tolist()
        labels = tuple((len(values) - one, one) for one in ones)
        return replace(data, info=replace(data.info, target=replace(target, labels=labels)))
    if target.classes is None or len(target.shape) not in (0, 2) or values is None or len(target.wrong_rows(values)):
        return data
    counts = tuple(torch.bincount(values.flatten().long(), minlength=target.classes).tolist())
    return replace(data, info=replace(data.info, target=replace(target, counts=counts)))


def build_task(task: Component | None, data: Component, info: DataInfo) -> Task:
    """The task, or the dataset's own where the spec names none.

    Raises:
        NotFoundError: no task has that name.
        SpecError: the parameters are wrong, or do not fit the data.
        CodeError: the user's task cannot be imported or lacks a method.
    """
    chosen = task or Component(name=default_task(data, info))
    if is_import_path(chosen.name):
        return _called(Task, chosen, "task", info=info)  # type: ignore[type-abstract]  # only asked with isinstance
    entry = TASKS.get(chosen.name)
    return _placed("task", lambda: entry.build(validated(entry.params, chosen.params, "task.params"), info))


def default_task(data: Component, info: DataInfo) -> str:
    """The name of the dataset's own task."""
    entry = None if is_import_path(data.name) else DATASETS.get(data.name)
    if entry is not None and entry.task is not None:
        return entry.task
    return "regression" if info.target.classes is None else "classification"


def build_optimizer(choice: OptimizerChoice, parameters: Mapping[str, nn.Parameter]) -> Optimizer:
    """The optimizer over ``parameters``, those that are trained by name, with the peak learning rates.

    Raises:
        NotFoundError: no optimizer has that name.
        SpecError: the parameters are wrong, a group's pattern names none, or it needs whole matrices and these are
            shards.
    """
    entry = OPTIMIZERS.get(choice.name)
    if "whole_matrices" in entry.needs and any(is_sharded(one) for one in parameters.values()):
        raise _refused("train.optimizer.name", f"{choice.name} needs whole matrices, and fsdp shards them")
    params = validated(entry.params, choice.params, "train.optimizer")
    groups = list(_groups(choice, parameters))
    if entry.named:
        names = {one: name for name, one in parameters.items()}
        groups = [{**group, "names": [names[one] for one in group["params"]]} for group in groups]
    try:
        return entry.build(params, groups, choice.lr)
    except ValueError as error:  # torch's own checks of parameters against each other, and of an empty list
        raise _refused("train.optimizer", said(error)) from None


def _groups(choice: OptimizerChoice, parameters: Mapping[str, nn.Parameter]) -> Iterator[Group]:
    """Each of the ``choice``'s groups, and last whatever is in none; apart what weight decay is not for."""
    left = dict(parameters)
    for number, group in enumerate(choice.groups):
        path, own = f"train.optimizer.groups.{number}.parameters", dict[str, nn.Parameter]()
        for index, pattern in enumerate(group.parameters):
            matching = fnmatch.filter(parameters, pattern)
            if not matching:
                message = f"no parameter that is trained matches {pattern!r}"
                raise _refused(f"{path}.{index}", message, did_you_mean(pattern, tuple(parameters)))
            own |= {name: left.pop(name) for name in matching if name in left}
        if not own:
            raise _refused(path, "groups before it have all parameters that it names", "put it before them")
        settings = group.model_dump(include={"lr", "weight_decay"}, exclude_none=True)
        yield from _by_decay(choice, own.values(), settings)
    yield from _by_decay(choice, left.values(), {})


def _by_decay(choice: OptimizerChoice, parameters: Collection[nn.Parameter], settings: Group) -> Iterator[Group]:
    spared = [one for one in parameters if choice.decay_on == "matrices" and one.dim() < 2]
    if len(spared) < len(parameters):
        yield {"params": [one for one in parameters if choice.decay_on == "all" or one.dim() > 1], **settings}
    if spared:
        yield {"params": spared, **settings, "weight_decay": 0.0}


LrFactor = Callable[[int, int, Sequence[float]], float]
"""``(step, total, seen)`` to the factor on the peak learning rate for optimizer step ``step`` (from 0) of ``total``;
``seen`` are the values of the schedule's ``metric`` at the validations before it."""


def build_lr_schedule(choice: LrSchedule) -> LrFactor:
    """
    Linear warm-up first: step ``w`` of a warm-up of ``w`` steps is the first at the schedule's own start.

    Raises:
        NotFoundError: no schedule has that name.
        SpecError: the parameters are wrong.
    """
    entry = LR_SCHEDULES.get(choice.name)
    params = validated(entry.params, choice.params, "train.lr_schedule")

    def factor(step: int, total: int, seen: Sequence[float] = ()) -> float:
        warmup = min(steps_of(choice.warmup, total), total) if choice.warmup else 0
        after = max(1, total - warmup)
        if step < warmup:
            return entry.build(params, 0, after, ()) * (step + 1) / (warmup + 1)
        return entry.build(params, step - warmup, after, seen)

    return factor


def import_object(target: str, path: str) -> Any:
    """Import ``module:attribute``, named at ``path`` of the spec.

    Raises:
        CodeError: it cannot be; the message says which part was not found.
    """
    module_name, _, attribute = target.partition(":")
    try:
        found: Any = import_module(module_name)
    except Exception as error:
        raise CodeError(f"{path}: {target}: {_import_failure(module_name, error)}", _CODE_HINT) from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            public = tuple(key for key in vars(found) if not key.startswith("_")) if hasattr(found, "__dict__") else ()
            hint = did_you_mean(name, public) or _CODE_HINT
            file = getattr(found, "__file__", None)  # another's, where a name is taken
            raise CodeError(f"{path}: {target}: {module_name}{f' ({file})' if file else ''} has no {name!r}", hint)
        found = getattr(found, name)
    return found


_CODE_HINT = "the module path starts at the spec's code.dir"


def _import_failure(module_name: str, error: Exception) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and (module_name == missing or module_name.startswith(f"{missing}.")):
        return f"there is no module {missing!r}"
    where = place(error)
    return f"importing {module_name} failed{f' ({where})' if where else ''}: {named(error)}"


def _called(wanted: type[BuiltT], component: Component, path: str, **offered: Any) -> BuiltT:
    """Call the user's own ``component`` with its parameters, and with those of ``offered`` that it takes by name."""
    target = import_object(component.name, f"{path}.name")
    if not callable(target):
        raise CodeError(f"{path}.name: {component.name} is not a class or function")
    takes = signature(target).parameters
    arguments = {**component.params, **{name: value for name, value in offered.items() if name in takes}}
    try:
        signature(target).bind(**arguments)
    except TypeError as error:
        known = ", ".join(name for name in takes if name not in offered) or "nothing"
        raise _refused(f"{path}.params", f"{component.name}: {said(error)}", f"it takes: {known}") from None
    built = target(**arguments)
    if not isinstance(built, wanted):
        raise CodeError(f"{path}.name: {component.name} made {type(built).__name__}, and has to make {wanted.__name__}")
    return built


def _placed(path: str, build: Callable[[], BuiltT]) -> BuiltT:
    """``build()``, with an entry's refusal turned into a problem at ``path``."""
    try:
        return build()
    except (SpecError, NotFoundError):
        raise
    except EpochalError as error:
        raise _refused(path, error.message, error.hint) from error


def _refused(path: str, message: str, hint: str = "") -> SpecError:
    return SpecError("the job spec", (Problem(path, message, hint=hint),))
