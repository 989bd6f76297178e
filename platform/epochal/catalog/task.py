"""What a task is: what batches, loss and metrics mean."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn
from torchmetrics import MetricCollection

from epochal.catalog.data import Batch


class Task(Protocol):
    """The meaning of a batch.

    A loss is summed over the batch and divided by the global batch's total weight, so that the mean over a global
    batch does not depend on how the batch was shared among workers.
    """

    def weight(self, batch: Batch) -> int | Tensor:
        """What the batch counts for in the mean: an int where that is the number of samples, otherwise a scalar
        tensor (the sum of class weights, the number of tokens), which costs one more reduction a step."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The summed loss (a scalar) and the model's outputs. An empty batch gives a zero that can be back-propagated."""

    def metrics(self) -> MetricCollection:
        """Fresh metrics (without prefix) for a validation pass; ``update(outputs, batch["target"])`` feeds them."""
