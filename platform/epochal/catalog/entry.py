"""The shape of a catalog entry. Adding one is one file, one line in a table, one YAML in ``jobs/``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.optim import Optimizer

from epochal.catalog.data import DataInfo, DataLoading
from epochal.catalog.task import Task
from epochal.spec.params import STRICT


class Params(BaseModel):
    """An entry's own parameters, checked before anything is built. Describe each with a docstring below it."""

    model_config = ConfigDict(**STRICT, frozen=True, use_attribute_docstrings=True)


BuildT = TypeVar("BuildT")
OptimizerNeed = Literal["whole_matrices", "closure"]


@dataclass(frozen=True, kw_only=True)
class Entry(Generic[BuildT]):
    """One thing that a spec can name.

    ``source`` is the paper, RFC or documentation it follows; ``build`` makes it from its validated ``params``.
    """

    summary: str
    source: str
    params: type[Params]
    build: BuildT


@dataclass(frozen=True, kw_only=True)
class Architecture(Entry[Callable[[Any, DataInfo], nn.Module]]):
    """``build(params, info)`` returns a module from the fields ``info.inputs`` to (batch, *info.target.predicted), or
    of real targets to as many values in another shape.

    It raises ``EpochalError`` where the architecture cannot take such data, builds on torch's default device (meta
    too), and its module takes an empty batch: a worker's share of a small batch may be empty. ``example`` is the data
    that the contract suite builds it for and that the catalog's parameter count is for. One with ``own_outputs`` gives
    tensors of other shapes, (batch, ...), which a task of its kind knows.
    """

    example: DataInfo
    own_outputs: bool = False


@dataclass(frozen=True, kw_only=True)
class Dataset(Entry[DataLoading]):
    """``build(params, folder)`` loads it. ``task`` is what it is for where the spec names no task.

    None is for datasets that can hold either: classification where the target has classes, otherwise regression.
    ``stream``: it is one, so lengths in epochs are refused.
    """

    task: str | None
    stream: bool = False


@dataclass(frozen=True, kw_only=True)
class TaskEntry(Entry[Callable[[Any, DataInfo], Task]]):
    """``build(params, info)``; raises ``EpochalError`` where the data does not fit the task. ``phases``: a step has
    several, see ``task.Phased``."""

    phases: bool = False


@dataclass(frozen=True, kw_only=True)
class LossEntry(Entry[Callable[[Any, Tensor, Tensor], Tensor]]):
    """``build(params, output, target)`` returns the *sum* of the samples' losses, a scalar.

    ``target_kind`` says what ``target`` is: class numbers (batch,) against outputs (batch, classes), or real values
    of the outputs' shape. ``weight(params, target)`` is the sum of what the samples count for in the mean, None where
    each counts for one. ``scalars`` are those of the parameters that may be tensors, each a scalar.
    """

    target_kind: Literal["class", "real"]
    weight: Callable[[Any, Tensor], Tensor | None] = lambda params, target: None
    scalars: tuple[str, ...] = ()


Group = dict[str, Any]
"""Parameters and their settings, as torch's optimizers take them: ``{"params": [...], "lr": 0.1}``."""


@dataclass(frozen=True, kw_only=True)
class OptimizerEntry(Entry[Callable[[Any, Sequence[Group], float], Optimizer]]):
    """``build(params, groups, lr)``; a spec that cannot give what it ``needs`` is refused.

    ``lr`` and ``params`` are for whatever a group does not say. ``whole_matrices``: it cannot step on the shards of
    ``strategy: fsdp``. ``closure``: it computes loss and gradient several times a step, of which no gradient may be
    clipped or scaled. One that is ``named`` gets ``names`` in each group, of its parameters.
    """

    needs: tuple[OptimizerNeed, ...] = ()
    named: bool = False


@dataclass(frozen=True, kw_only=True)
class LrScheduleEntry(Entry[Callable[[Any, int, int, Sequence[float]], float]]):
    """``build(params, step, total_steps, seen)`` returns the factor on the peak learning rate, a pure function.

    ``step`` counts from 0 after the warm-up, ``total_steps`` are those after the warm-up. ``seen`` are the values that
    ``params.metric`` had at the validations before; nothing where the schedule has no such parameter.
    """
