"""Between two steps: what a task does with the model, and with all training samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from epochal.catalog.data import Batch
from epochal.catalog.task import TakesStock
from epochal.errors import TrainingError
from epochal.training.left_out import LeftOut
from epochal.training.loader import Loader
from epochal.training.parallel import Strategy
from epochal.training.setup import Setup


class Stock:
    """Lets the task take stock where it wants to. ``tick`` is called after each batch that it goes through."""

    def __init__(self, setup: Setup, strategy: Strategy, left_out: LeftOut, tick: Callable[[], None]) -> None:
        # Once: to ask a protocol costs microseconds, and `take` is called before each step.
        self._task = setup.task if isinstance(setup.task, TakesStock) else None
        self._strategy, self._tick = strategy, tick
        data, spec = setup.data, setup.spec
        self._loader = Loader(
            data.train, strategy.worker.device, spec.data.loader_workers, spec.train.seed, left_out, data.info.fields
        )
        self._endless = data.endless
        self._batch_size = spec.train.global_batch_size

    def take(self, step: int) -> None:
        """Before ``step``."""
        task, module = self._task, self._strategy.module
        if task is None or not task.takes_stock(step):
            return
        module.eval()
        with torch.no_grad():
            task.take_stock(module, step, self._every_sample)
        module.train()

    def _every_sample(self, compute: Callable[[Batch], Tensor]) -> Tensor:
        if self._endless:
            raise TrainingError("the task goes through all training samples, and the data has no end", "use another")
        worker, found = self._strategy.worker, []
        for loaded in self._loader.once(worker.rank, worker.world_size, self._batch_size):
            found.append(compute(loaded.batch)[: loaded.size])
            self._tick()
        own = torch.cat(found)
        # Counted: samples that cannot be used may be left out.
        counts = torch.zeros(worker.world_size, dtype=torch.int64, device=own.device)
        counts[worker.rank] = len(own)
        counts = self._strategy.sum(counts)
        begin = int(counts[: worker.rank].sum())
        every = own.new_zeros((int(counts.sum()), *own.shape[1:]))
        every[begin : begin + len(own)] = own
        return self._strategy.sum(every)
