"""One optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from epochal.catalog.data import Batch
from epochal.catalog.task import Loss, Task
from epochal.errors import TrainingError
from epochal.spec.job import Train
from epochal.training.loader import Loaded, split_evenly
from epochal.training.parallel import Strategy
from epochal.training.precision import Precision, scale_gradients
from epochal.training.sampler import micro_batches


class Gradients(NamedTuple):
    """What the backward passes of a step leave: this worker's summed loss, and the global weight it counts in."""

    loss: Tensor
    weight: float | Tensor


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
    return loss


class Stepper:
    """Runs optimizer steps on global batches."""

    def __init__(self, task: Task, optimizer: Optimizer, strategy: Strategy, train: Train) -> None:
        self.task = task
        self.optimizer = optimizer
        self.strategy = strategy
        self.precision = Precision(train.precision, strategy.worker.device, strategy.gradient_scale)
        self.micro_batch_size = train.micro_batch_size
        self.limit = train.clip_grad_norm
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self._trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def set_lr(self, factor: float) -> float:
        """Set every group's rate to its peak times ``factor``; that of what is in no group of the spec."""
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        return float(self.optimizer.defaults["lr"] * factor)

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
        loss = passes[0][0] if count == 1 else torch.stack([loss for loss, _ in passes]).sum()
        weights = [weight for _, weight in passes if weight is not None]
        if not weights:
            return Gradients(loss, float(loaded.global_size))
        weight = self._global_weight(weights)
        scale_gradients(self.optimizer, loaded.global_size / weight)
        return Gradients(loss, weight)

    def update(self) -> Tensor | None:
        """Change the parameters; the gradients' norm before clipping, None where they are not clipped."""
        return self.precision.update(self.optimizer, self._clip)

    def _backward(
        self, batch: Batch, global_size: int, together: Callable[[], None] = lambda: None
    ) -> tuple[Tensor, float | Tensor | None]:
        """Add the gradient of the loss over the global batch's samples: its weight is known after the last one only.

        Returns the loss and the weight. The outputs may be large: they are not kept for the next pass.
        """
        with self.precision.forward():
            loss = self.strategy.run(lambda: self._loss(batch))
        together()
        self.precision.backward(loss.total, global_size)
        return loss.total.detach(), loss.weight

    def _loss(self, batch: Batch) -> Loss:
        loss = loss_of(self.task, self.strategy.module, batch)
        # Nothing goes backward from them: a parameter that they alone depend on gets no gradient.
        return loss._replace(outputs=loss.outputs.detach())

    def _global_weight(self, weights: Sequence[float | Tensor]) -> Tensor:
        mine = torch.zeros((), dtype=torch.float64, device=self.strategy.worker.device)
        for weight in weights:
            mine += weight
        total = self.strategy.sum(mine)
        # A global batch in which nothing counts has a loss of zero, not of 0 / 0.
        return torch.where(total == 0, 1.0, total)

    def _clip(self) -> Tensor | None:
        return None if self.limit is None else self.strategy.clip(self._trained, self.limit)
