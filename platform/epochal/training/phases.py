"""Steps of several phases: each has a loss and parameters of its own, and begins with what those before it changed.

All phases share one optimizer, which passes over parameters without a gradient, and one scale of the loss in fp16.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from epochal.catalog.data import Batch
from epochal.catalog.task import Loss, Phase, Phased, Task
from epochal.errors import TrainingError, did_you_mean, some
from epochal.spec.job import Train
from epochal.training.loader import Loaded
from epochal.training.parallel import Strategy, training_only
from epochal.training.step import ClosureStepper, Gradients, Stepper
from epochal.training.weights import matching

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


def stepper_for(task: Task, optimizer: Optimizer, strategy: Strategy, train: Train) -> Stepper:
    """
    Raises:
        TrainingError: the task's phases do not fit the model, or the rest of the spec.
    """
    if isinstance(optimizer, LBFGS):
        if isinstance(task, Phased):
            raise TrainingError("lbfgs goes over a batch several times, and the task's phases over each", "use adam")
        return ClosureStepper(task, optimizer, strategy, train)
    if not isinstance(task, Phased):
        return Stepper(task, optimizer, strategy, train)
    return PhasedStepper(task, optimizer, strategy, train)


class OnePhase:
    """A task as one of its phases sees it."""

    def __init__(self, task: Phased, phase: Phase) -> None:
        self._task, self._phase = task, phase

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        return self._task.loss(model, batch, self._phase)

    def metrics(self) -> MetricCollection:
        return self._task.metrics()


class PhasedStepper(Stepper):
    """Runs the phases of a step one after another on the same global batch."""

    def __init__(self, task: Phased, optimizer: Optimizer, strategy: Strategy, train: Train) -> None:
        super().__init__(task, optimizer, strategy, train)
        trained = [name for name, one in strategy.module.named_parameters() if one.requires_grad]
        self._phases = [
            (phase.name, names, Stepper(OnePhase(task, phase), optimizer, strategy, train, self.precision))
            for phase, names in shared_out(task.phases, trained)
        ]

    def step(self, loaded: Loaded, mark: Callable[[], None]) -> tuple[Gradients, Tensor | None]:
        """The greatest of the norms is told as the step's, and the time of all phases but the last update as that of
        the gradients."""
        passes, norms = dict[str, Gradients](), list[Tensor]()
        for number, (name, names, stepper) in enumerate(self._phases, start=1):
            with self.strategy.only(names):
                passes[name] = stepper.gradients(loaded, mark if number == 1 else lambda: None)
                if number == len(self._phases):
                    mark()
                norm = stepper.update()
            norms += [] if norm is None else [norm]
        return _together(passes, float(loaded.global_size)), torch.stack(norms).max() if norms else None


def _together(passes: dict[str, Gradients], weight: float) -> Gradients:
    """The sum of the phases' mean losses, and what each of them logs, as sums over that ``weight``."""
    logs = dict[str, Tensor]()
    for name, phase in passes.items():
        scale = weight / phase.weight
        own = {f"{name}_loss": phase.loss, **phase.logs}
        if twice := logs.keys() & own.keys():
            raise TrainingError(f"the task logs {some(sorted(twice))} in several phases", "name it otherwise in one")
        logs |= {key: value.double() * scale for key, value in own.items()}
    return Gradients(torch.stack([logs[f"{name}_loss"] for name in passes]).sum(), weight, logs)


def shared_out(phases: Sequence[Phase], trained: Collection[str]) -> list[tuple[Phase, frozenset[str]]]:
    """Each phase with those of the ``trained`` parameters that are its own.

    Raises:
        TrainingError: a phase has none, or a parameter is not in exactly one phase.
    """
    shares = [(phase, frozenset(matching(trained, phase.parameters))) for phase in phases]
    for phase, names in shares:
        if not names:
            told = f"no parameter that is trained matches {some(phase.parameters)}, of the phase {phase.name}"
            raise TrainingError(told, did_you_mean(phase.parameters[0], tuple(trained)))
    counts = {name: sum(name in names for _, names in shares) for name in trained}
    for wrong, said in ((0, "in no phase"), (2, "in several phases")):
        if found := [name for name, count in counts.items() if min(count, 2) == wrong]:
            raise TrainingError(f"{some(found)} would be trained {said}", "name each in one, or in train.freeze")
    return shares


def passes(task: Task, model: nn.Module) -> Iterator[Task]:
    """The task, or one phase of it after another while the ``model`` requires gradients for that only.

    Raises:
        TrainingError: its phases do not fit the model.
    """
    if not isinstance(task, Phased):
        yield task
        return
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    for phase, names in shared_out(task.phases, trained):
        with training_only(model, names):
            yield OnePhase(task, phase)
