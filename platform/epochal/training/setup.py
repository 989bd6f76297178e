"""What a training is made of, built and ready."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from epochal.catalog.build import LrFactor, build_lr_schedule, build_model, build_optimizer, build_task, load_data
from epochal.catalog.data import LoadedData
from epochal.catalog.task import Task
from epochal.errors import SpecError
from epochal.spec.job import JobSpec
from epochal.training import seeding
from epochal.training.check import Checked, behind_the_end, check
from epochal.training.shares import refuse_dependent


@dataclass(frozen=True)
class Setup:
    """A job spec and the pieces built from it.

    ``optimizer`` is built from the parameters that are trained, by name, after the model was wrapped;
    ``lr_factor`` is what the peak learning rate is multiplied with.
    """

    spec: JobSpec
    model: nn.Module
    task: Task
    data: LoadedData
    optimizer: Callable[[Mapping[str, nn.Parameter]], Optimizer]
    lr_factor: LrFactor
    checked: Checked = field(default_factory=Checked)


def prepare(spec: JobSpec, folder: Path, known: Setup | None = None) -> Setup:
    """Build what ``spec`` names; ``folder`` is what relative paths of the data start from.

    The model's initial weights depend on the seed alone, so that every worker builds the same. What is ``known`` from
    an earlier training in this process is used again: its data where that is the same, and what was checked, where
    nothing differs but the optimizer and the seed.

    Raises:
        SpecError, NotFoundError, CodeError: something cannot be built, could not be trained, or its result would depend
            on the number of workers.
    """
    data = known.data if known is not None and known.spec.data == spec.data else load_data(spec.data, folder=folder)
    seeding.start(spec.train.seed)
    model = build_model(spec.model, data.info)
    task = build_task(spec.task, spec.data, data.info)
    if known is not None and _alike(known.spec, spec):
        checked = known.checked
        if problems := tuple(behind_the_end(spec, data)):
            raise SpecError("the job spec", problems)
    else:
        refuse_dependent(spec, data, model, task)
        checked = check(spec, data, task)
    return Setup(
        spec=spec,
        model=model,
        task=task,
        data=data,
        optimizer=partial(build_optimizer, spec.train.optimizer),
        lr_factor=build_lr_schedule(spec.train.lr_schedule),
        checked=checked,
    )


def _alike(one: JobSpec, other: JobSpec) -> bool:
    """Whether what was found of one holds for the other."""
    train = {"optimizer": other.train.optimizer, "lr_schedule": other.train.lr_schedule, "seed": other.train.seed}
    return one.model_copy(update={"train": one.train.model_copy(update=train)}) == other
