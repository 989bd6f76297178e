"""One optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from epochal.catalog.data import Batch
from epochal.catalog.task import Loss, Task
from epochal.errors import TrainingError, some
from epochal.spec.job import Train
from epochal.training.loader import Loaded, split_evenly
from epochal.training.parallel import Strategy
from epochal.training.precision import Precision, scale_gradients
from epochal.training.sampler import micro_batches


class Gradients(NamedTuple):
    """What the backward passes of a step leave: this worker's summed loss, the global weight it counts in, and this
    worker's sums of what its task logs."""

    loss: Tensor
    weight: float | Tensor
    logs: Mapping[str, Tensor] = {}


def loss_of(task: Task, model: nn.Module, batch: Batch) -> Loss:
    """The task's loss, in training and validation alike.

    Raises:
        TrainingError: the task gives something else.
    """
    loss = task.loss(model, batch)
    if not isinstance(loss, Loss):
        name, given = type(task).__name__, type(loss).__name__
        raise TrainingError(
            f"{name}.loss returned a {given}", "return epochal.catalog.task.Loss(total, weight, outputs)"
        )
    sums = {"total": loss.total, **loss.logs}
    if odd := [key for key, value in sums.items() if not isinstance(value, Tensor) or value.dim()]:
        told = f"{type(task).__name__}.loss gives {some(odd)}, and not as scalar tensors"
        raise TrainingError(told, "give the sum over the samples, a tensor without dimensions")
    return loss


class Stepper:
    """Runs optimizer steps on global batches. ``precision`` is one that it shares with others."""

    def __init__(
        self, task: Task, optimizer: Optimizer, strategy: Strategy, train: Train, precision: Precision | None = None
    ) -> None:
        self.task = task
        self.optimizer = optimizer
        self.strategy = strategy
        self.precision = precision or Precision(train.precision, strategy.worker.device, strategy.gradient_scale)
        self.micro_batch_size = train.micro_batch_size
        self.limit = train.clip_grad_norm
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self._logged: tuple[str, ...] | None = None
        self._weighs: bool | None = None
        self._trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def set_lr(self, factor: float) -> float:
        """Set every group's rate to its peak times ``factor``; that of what is in no group of the spec."""
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        return float(self.optimizer.defaults["lr"] * factor)

    def step(self, loaded: Loaded, mark: Callable[[], None]) -> tuple[Gradients, Tensor | None]:
        """One step; what ``gradients`` and ``update`` give.

        ``mark`` is called twice: before the workers first exchange gradients, and before the last update.
        """
        gradients = self.gradients(loaded, mark)
        mark()
        return gradients, self.update()

    def gradients(self, loaded: Loaded, together: Callable[[], None] = lambda: None) -> Gradients:
        """Leave the gradient of the global batch's mean loss in the parameters.

        ``together`` is called before the last backward pass, in which the workers exchange gradients.
        """
        count = micro_batches(loaded.global_size, self.strategy.worker.world_size, self.micro_batch_size)
        *early, last = split_evenly(loaded.batch, loaded.size, count)
        for parameter in self._trained:  # as `zero_grad` does, without what it has for the profiler
            parameter.grad = None
        passes = []
        for batch in early:
            with self.strategy.accumulating():
                passes.append(self._backward(batch, loaded.global_size))
        passes.append(self._backward(last, loaded.global_size, together))
        self.strategy.reduced()
        loss = passes[0].total if count == 1 else torch.stack([one.total for one in passes]).sum()
        logs = {name: torch.stack([one.logs[name] for one in passes]).sum() for name in passes[0].logs}
        weights = [one.weight for one in passes if one.weight is not None]
        if not weights:
            return Gradients(loss, float(loaded.global_size), logs)
        # The passes have divided by samples: what they all weigh together was not known before the last of them.
        weight = self._global_weight(weights)
        scale_gradients(self.optimizer, loaded.global_size / weight)
        return Gradients(loss, weight, logs)

    def update(self) -> Tensor | None:
        """Change the parameters; the gradients' norm before clipping, None where they are not clipped."""
        return self.precision.update(self.optimizer, self._clip)

    def _backward(self, batch: Batch, global_size: int, together: Callable[[], None] = lambda: None) -> Loss:
        """Add the gradient of the loss over the global batch's samples: its weight is known after the last one only.

        Returns the loss without outputs: they may be large, and are not kept for the next pass.
        """
        with self.precision.forward():
            loss = self.strategy.run(lambda: self._loss(batch))
        together()
        self.precision.backward(loss.total, global_size)
        logs = {name: value.detach() for name, value in loss.logs.items()}
        return Loss(loss.total.detach(), loss.weight, None, logs)

    def _loss(self, batch: Batch) -> Loss:
        loss = loss_of(self.task, self.strategy.module, batch)
        names = tuple(loss.logs)
        if self._logged is None and (taken := {"loss", "lr", "grad_norm"} & loss.logs.keys()):
            raise TrainingError(f"the task logs {some(sorted(taken))}, which every training does", "name it otherwise")
        if self._logged not in (None, names):
            told = (
                f"the task logs {some(names) or 'nothing'} for a batch, and for one before {some(self._logged or ())}"
            )
            raise TrainingError(told, "give Loss.logs the same names for every batch")
        if self._weighs not in (None, loss.weight is not None):
            # Workers sum weights where there are some: one that had none would leave the others waiting.
            told = "the task gives Loss.weight for some batches, and None for others"
            raise TrainingError(told, "give it for every batch, or for none")
        self._logged, self._weighs = names, loss.weight is not None
        # Nothing goes backward from them: a parameter that they alone depend on gets no gradient.
        return loss._replace(outputs=tree_map_only(Tensor, Tensor.detach, loss.outputs))

    def _global_weight(self, weights: Sequence[float | Tensor]) -> Tensor:
        mine = torch.zeros((), dtype=torch.float64, device=self.strategy.worker.device)
        for weight in weights:
            mine += weight
        total = self.strategy.sum(mine)
        # A global batch in which nothing counts has a loss of zero, not of 0 / 0.
        return torch.where(total == 0, 1.0, total)

    def _clip(self) -> Tensor | None:
        return None if self.limit is None else self.strategy.clip(self._trained, self.limit)


class ClosureStepper(Stepper):
    """For an optimizer that computes loss and gradient several times a step, on the same global batch."""

    def step(self, loaded: Loaded, mark: Callable[[], None]) -> tuple[Gradients, Tensor | None]:
        """What the first pass gave. The time of all of them is told as that of the gradients."""
        passes: list[Gradients] = []

        def again() -> Tensor:
            passes.append(self.gradients(loaded, (lambda: None) if passes else mark))
            # The optimizer decides by it, so it has to be that of the global batch on every worker.
            return self.strategy.sum(passes[-1].loss.clone()) / passes[-1].weight

        self.optimizer.step(again)  # type: ignore[arg-type]  # it takes the loss as a tensor too
        mark()
        return passes[0], None
