"""One optimizer step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from epochal.catalog.task import Task
from epochal.spec.job import Train
from epochal.training.loader import Loaded, split_evenly
from epochal.training.parallel import Strategy
from epochal.training.precision import Precision
from epochal.training.sampler import micro_batches


class Gradients(NamedTuple):
    """What the backward passes of a step leave: this worker's summed loss, and the global weight it counts in."""

    loss: Tensor
    weight: float | Tensor


class Stepper:
    """Runs optimizer steps on global batches."""

    def __init__(self, model: nn.Module, task: Task, optimizer: Optimizer, strategy: Strategy, train: Train) -> None:
        self.model = model
        self.task = task
        self.optimizer = optimizer
        self.strategy = strategy
        self.precision = Precision(train.precision, strategy.worker.device, strategy.gradient_scale)
        self._micro_batch_size = train.micro_batch_size
        self._limit = train.clip_grad_norm
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        self._trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def set_lr(self, factor: float) -> float:
        """Set every group's rate to its peak times ``factor``; the first group's."""
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        return float(self._peaks[0] * factor)

    def gradients(self, loaded: Loaded) -> Gradients:
        """Leave the gradient of the global batch's mean loss in the parameters."""
        weight = self._global_weight(loaded)
        count = micro_batches(loaded.global_size, self.strategy.worker.world_size, self._micro_batch_size)
        *early, (last, _) = split_evenly(loaded.batch, loaded.size, count)
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for batch, _ in early:
            with self.strategy.accumulating():
                losses.append(self._backward(batch, weight))
        losses.append(self._backward(last, weight))
        return Gradients(losses[0] if count == 1 else torch.stack(losses).sum(), weight)

    def update(self) -> Tensor | None:
        """Change the parameters; the gradients' norm before clipping, None where they are not clipped."""
        return self.precision.update(self.optimizer, self._clip)

    def _backward(self, batch: dict[str, Tensor], weight: float | Tensor) -> Tensor:
        with self.precision.forward():
            loss, _ = self.task.loss(self.model, batch)
        self.precision.backward(loss, weight)
        return loss.detach()

    def _global_weight(self, loaded: Loaded) -> float | Tensor:
        weight = self.task.weight(loaded.batch)
        if isinstance(weight, int):
            return float(loaded.global_size)
        total = self.strategy.sum(weight.detach().clone().float())
        # A global batch in which nothing counts has a loss of zero, not of 0 / 0.
        return torch.where(total == 0, torch.ones_like(total), total)

    def _clip(self) -> Tensor | None:
        return None if self._limit is None else self.strategy.clip(self._trained, self._limit)
