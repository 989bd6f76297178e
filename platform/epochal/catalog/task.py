"""What a task is: what batches, loss and metrics mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from epochal.catalog.data import Batch

if TYPE_CHECKING:  # only a validation has to wait for its import
    from torchmetrics import MetricCollection


class Loss(NamedTuple):
    """Of one batch: sums, never means.

    What is trained on and shown is the sum of ``total`` over the sum of ``weight``, in training over the global batch
    and in validation over all of the data, so that it does not depend on how the samples were shared among workers.
    """

    total: Tensor
    """The samples' losses, a scalar."""
    weight: float | Tensor | None
    """What the batch counts for: the sum of class weights, the number of tokens. None counts every sample for one;
    anything else is summed over the workers, which costs one more reduction a step. It is None for every batch of a
    task or for none."""
    outputs: Tensor
    """What ``Task.metrics`` take."""

    def counts_for(self, samples: int) -> float | Tensor:
        """The weight of a batch of so many samples."""
        return samples if self.weight is None else self.weight


@runtime_checkable
class Task(Protocol):
    """The meaning of a batch."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Run the model. An empty batch gives a total of zero that can be back-propagated."""

    def metrics(self) -> MetricCollection:
        """Fresh metrics (without prefix) for a validation pass; ``update(outputs, batch["target"])`` feeds them."""
