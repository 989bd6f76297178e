"""Loss and metrics of the validation split, the same whatever the number of workers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from epochal.catalog.task import Task
from epochal.training.loader import Loaded, Loader
from epochal.training.parallel import Strategy
from epochal.training.precision import Precision
from epochal.training.step import loss_of

if TYPE_CHECKING:  # a second's import, which the first step must not wait for
    from torchmetrics import MetricCollection


class Validation:
    """Passes over the validation split. ``tick`` is called after each batch."""

    def __init__(self, task: Task, loader: Loader, strategy: Strategy, precision: Precision, batch_size: int) -> None:
        self._task = task
        self._loader = loader
        self._strategy = strategy
        self._precision = precision
        self._batch_size = batch_size
        # Metrics that keep their samples cannot be gathered from a worker that has none: so few go to every worker.
        self._shared = len(loader.split) >= strategy.worker.world_size

    def run(self, tick: Callable[[], None]) -> dict[str, float]:
        """``val/loss`` and ``val/<metric>`` of the model as it is, the same numbers on every worker.

        No sample counts twice: workers with fewer samples are not given more to make up for it.
        """
        module = self._strategy.module
        metrics = self._task.metrics().to(self._strategy.worker.device)
        module.eval()
        try:
            totals = self._update(metrics, tick)
        finally:
            module.train()
        loss, weight = (self._strategy.sum(totals) if self._shared else totals).tolist()
        # As in training: where nothing counts the loss is zero, not 0 / 0.
        return self._agreed({"loss": loss / (weight or 1.0), **self._computed(metrics)})

    @torch.no_grad()
    def _update(self, metrics: MetricCollection, tick: Callable[[], None]) -> Tensor:
        """Feed ``metrics`` with this worker's batches; its sum of losses and of weights: (2,) on CPU."""
        totals = torch.zeros(2, dtype=torch.float64, device=self._strategy.worker.device)
        for loaded in self._batches():
            if loaded.size or self._strategy.lockstep:
                with self._precision.forward():
                    loss = self._strategy.run(partial(loss_of, self._task, self._strategy.module, loaded.batch))
            if loaded.size:
                metrics.update(_full(loss.outputs), loaded.batch["target"])
                totals[0] += loss.total
                totals[1] += loss.counts_for(loaded.size)
            tick()
        return totals.cpu()

    def _batches(self) -> Iterable[Loaded]:
        worker = self._strategy.worker
        if self._shared:
            return self._loader.once(worker.rank, worker.world_size, self._batch_size)
        return self._loader.once(0, 1, self._batch_size)

    def _computed(self, metrics: MetricCollection) -> dict[str, float]:
        """The metrics over all workers; those of several values have no place on a curve and are left out."""
        for metric in metrics.values(copy_state=False):
            metric.sync_on_compute = self._shared
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="torchmetrics")
            values = metrics.compute()
        return {name: float(value) for name, value in values.items() if torch.as_tensor(value).numel() == 1}

    def _agreed(self, values: dict[str, float]) -> dict[str, float]:
        """The first worker's: decisions follow from these, so that workers have to hold the very same numbers."""
        numbers = self._strategy.broadcast(torch.tensor(list(values.values()), dtype=torch.float64)).tolist()
        return {f"val/{name}": number for name, number in zip(values, numbers, strict=True)}


def _full(outputs: Tensor) -> Tensor:
    return outputs.float() if outputs.is_floating_point() else outputs
