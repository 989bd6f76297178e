"""What a task is: what batches, loss and metrics mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor, nn

from epochal.catalog.data import Batch

if TYPE_CHECKING:  # torchmetrics takes a second to import: only a validation has to wait for it
    from torchmetrics import MetricCollection


@runtime_checkable
class Task(Protocol):
    """The meaning of a batch.

    A loss is summed over the batch and divided by the global batch's total weight, so that the mean over a global
    batch does not depend on how the batch was shared among workers.
    """

    def weight(self, batch: Batch) -> int | Tensor:
        """What the batch counts for in the mean: an int where that is the number of samples, otherwise a scalar
        tensor (the sum of class weights, the number of tokens), which costs one more reduction a step."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The summed loss (a scalar) and the outputs that ``metrics`` take.

        An empty batch gives a zero that can be back-propagated.
        """

    def metrics(self) -> MetricCollection:
        """Fresh metrics (without prefix) for a validation pass; ``update(outputs, batch["target"])`` feeds them."""
