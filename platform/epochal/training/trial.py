"""Two real samples through the model on the CPU, as a worker would: what only values tell, before a training."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from epochal.catalog.data import LoadedData, Split
from epochal.catalog.task import Task
from epochal.errors import CodeError, EpochalError, NotFoundError, Problem, SpecError
from epochal.own_code import place
from epochal.redaction import named
from epochal.spec.job import JobSpec
from epochal.spec.section import is_import_path
from epochal.training.step import loss_of
from epochal.training.weights import start_from

MAX_PARAMETERS = 15_000_000
MAX_FLOPS = 10**10
"""A model that has more, or takes more for a sample, is not tried: it should take a second at most."""


def try_out(spec: JobSpec, data: LoadedData, model: nn.Module, task: Task, folder: Path) -> tuple[str, ...]:
    """Train the ``model``, on the CPU, on two samples and validate with two; what is to be said of it.

    ``folder`` is what a relative ``train.init_from`` starts from; one that is a job's is not looked at.

    Raises:
        SpecError: the model, or the task, cannot take them.
    """
    try:
        _run(spec, data, model.train(), task, folder)
    except SpecError as error:
        if not (is_import_path(spec.model.name) and spec.resources.gpus_per_worker):
            raise
        return (f"the model, which may need a GPU, failed on the CPU: {error.problems[0]}",)
    return ()


def _run(spec: JobSpec, data: LoadedData, model: nn.Module, task: Task, folder: Path) -> None:
    start = spec.train.init_from
    if start is not None and (folder / start).exists():
        with blaming("train.init_from", "cannot be started from"):
            start_from(model, folder / start)
    with blaming("data", "samples of the training data cannot be read"):
        batch = _two(data.train)
    with blaming("model", "cannot be trained on samples of this data"):
        loss = loss_of(task, model, batch)
        loss.total.backward()  # type: ignore[no-untyped-call]
    if not torch.isfinite(loss.total):
        told = f"the loss of two samples is {loss.total.item():g} before the first step"
        raise SpecError("the job spec", (Problem("data", told, hint="does the data hold NaN, or numbers too large?"),))
    if not data.validation:
        return
    with blaming("data", "samples of the validation data cannot be read"):
        batch = _two(data.validation)
    with blaming("model", "cannot be validated on samples of this data"), torch.no_grad():
        loss_of(task, model.eval(), batch)


def _two(split: Split) -> dict[str, torch.Tensor]:
    return split.fetch(sorted({0, len(split) - 1}))


@contextmanager
def blaming(path: str, what: str) -> Generator[None]:
    """Whatever is raised within the block becomes a problem at ``path`` of the spec, with the line of the user's code.

    Raises:
        SpecError
    """
    try:
        yield
    except (SpecError, CodeError, NotFoundError):
        raise
    except EpochalError as error:
        raise SpecError("the job spec", (Problem(path, error.message, hint=error.hint),)) from error
    except Exception as error:
        where = place(error)
        told = f"{what}: {named(error)}{f' ({where})' if where else ''}"
        raise SpecError("the job spec", (Problem(path, told),)) from error
