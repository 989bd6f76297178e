"""Loss and metrics of the validation or test split, the same whatever the number of workers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from epochal.catalog.data import Batch
from epochal.catalog.lean_torchmetrics import metrics_of
from epochal.catalog.task import FeedsMetrics
from epochal.errors import TrainingError, some
from epochal.redaction import named
from epochal.training.left_out import LeftOut
from epochal.training.loader import Loaded, Loader
from epochal.training.parallel import Strategy
from epochal.training.pictures import Keeper, Kept
from epochal.training.precision import Precision
from epochal.training.setup import Setup
from epochal.training.step import loss_of

if TYPE_CHECKING:  # a second's import, which the first step must not wait for
    from torchmetrics import Metric, MetricCollection

_log = logging.getLogger(__name__)


class Validation:
    """Passes over the validation split, or the ``part`` called ``test``. ``tick`` is called after each batch.

    A metric that fails is left out, and the others go on: ``failed`` says of each why.
    """

    def __init__(
        self,
        setup: Setup,
        strategy: Strategy,
        precision: Precision,
        batch_size: int,
        part: Literal["val", "test"],
        left_out: LeftOut,
    ) -> None:
        self.failed: dict[str, str] = {}
        self.keeps = False
        """Whether some of this worker's samples are ``kept``, to be drawn."""
        self.kept = Kept([], [])
        data, checked = setup.data, setup.checked
        split = (data.validation or data.train) if part == "val" else (data.test or data.train)
        processes, seed = setup.spec.data.loader_workers, setup.spec.train.seed
        self._part = part
        self._task = setup.task
        self._left_out = checked.left_out if part == "val" else checked.left_out_of_test
        self._loader = Loader(split, strategy.worker.device, processes, seed, left_out, data.info.fields)
        self._strategy = strategy
        self._precision = precision
        self._batch_size = batch_size
        # Metrics that keep their samples cannot be gathered from a worker that has none: so few go to every worker.
        self._shared = 1 < strategy.worker.world_size <= len(split)

    def run(self, tick: Callable[[], None], forgiving: bool = False) -> dict[str, float]:
        """``val/loss`` and ``val/<metric>`` (or ``test/...``) of the model as it is, the same numbers on every worker.

        No sample counts twice: workers with fewer samples are not given more to make up for it. A ``forgiving`` one
        gives nothing where a worker cannot go through its samples; not so where workers run the model in lockstep.
        """
        module = self._strategy.module
        metrics = self._metrics()
        module.eval()
        broken, logs = "", dict[str, Tensor]()
        try:
            totals, logs = self._update(metrics, tick)
        except Exception as error:
            if not forgiving or self._strategy.lockstep:
                raise
            broken, totals = named(error), torch.zeros(3, dtype=torch.float64)
            _log.warning("measuring %s failed", self._part, exc_info=True)
        finally:
            module.train()
        told = torch.tensor([broken != "", self._shared and not totals[2]], dtype=torch.float64)
        # Of few samples that go to every worker, loss and weight grow alike.
        loss, weight, breaks, empty = self._strategy.sum(torch.cat([totals[:2], told])).tolist()
        if breaks:
            self.failed["loss"] = broken or "another worker could not go through its samples"
            return {}
        self._drop_failed(metrics)
        if empty:  # all of a worker's samples were left out, so that it has nothing to gather: as with few samples
            self._shared = False
            return self.run(tick, forgiving)
        logged = self._strategy.sum(torch.stack([*logs.values()]).cpu()).tolist() if logs else []
        # As in training: where nothing counts the loss is zero, not 0 / 0.
        means = {name: total / (weight or 1.0) for name, total in zip(("loss", *logs), (loss, *logged), strict=True)}
        return self._agreed({**means, **self._computed(metrics)})

    def _metrics(self) -> MetricCollection:
        """Fresh ones, each by itself: groups that share a state would fail together."""
        made = metrics_of(self._task).to(self._strategy.worker.device)
        from torchmetrics import MetricCollection  # which the task has imported by now, without what it brings along

        kept: dict[str, Metric | MetricCollection] = {
            str(name): metric
            for name, metric in made.items(keep_base=True, copy_state=False)
            if name not in self._left_out and name not in self.failed
        }
        return MetricCollection(kept, prefix=made.prefix, postfix=made.postfix, compute_groups=False)

    @torch.no_grad()
    def _update(self, metrics: MetricCollection, tick: Callable[[], None]) -> tuple[Tensor, dict[str, Tensor]]:
        """Feed ``metrics`` with this worker's batches.

        Returns its sum of losses, of weights and of samples, (3,) on CPU, and those of what the task logs.
        """
        totals = torch.zeros(3, dtype=torch.float64, device=self._strategy.worker.device)
        logs: dict[str, Tensor] = {}
        self.kept = Kept([], [])
        feeds = self._feeds(metrics)
        keeper = Keeper(len(self._loader.split) // (self._strategy.worker.world_size if self._shared else 1))
        for loaded in self._batches():
            if loaded.size or self._strategy.lockstep:
                with self._precision.forward():
                    loss = self._strategy.run(partial(loss_of, self._task, self._strategy.module, loaded.batch))
            if loaded.size:
                outputs = tree_map_only(Tensor, _in_full, loss.outputs)
                self._each({name: partial(feed, outputs, loaded.batch) for name, feed in feeds.items()})
                if self.keeps:
                    keeper.add(loaded.batch, outputs)
                totals[0] += loss.total
                totals[1] += loss.counts_for(loaded.size)
                totals[2] += loaded.size
                logs = {name: value.double() + logs.get(name, 0.0) for name, value in loss.logs.items()}
            tick()
        self.kept = keeper.kept
        if taken := {"loss", *feeds} & logs.keys():
            raise TrainingError(f"the task logs {some(sorted(taken))}, a metric of it too", "name it otherwise")
        return totals.cpu(), logs

    def _feeds(self, metrics: MetricCollection) -> dict[str, Callable[[Any, Batch], None]]:
        """How each of them takes a batch."""
        from torchmetrics import MetricCollection

        feed = self._task.update if isinstance(self._task, FeedsMetrics) else _outputs_and_target
        each = metrics.items(keep_base=True, copy_state=False)
        return {str(name): partial(feed, MetricCollection({name: one}, compute_groups=False)) for name, one in each}

    def _each(self, calls: Mapping[str, Callable[[], object]]) -> None:
        """Make the call for each metric that has not failed yet."""
        for name, call in calls.items():
            if name not in self.failed:
                try:
                    call()
                except Exception as error:
                    _log.warning("the metric %s/%s failed", self._part, name, exc_info=True)
                    self.failed[name] = named(error)

    def _drop_failed(self, metrics: MetricCollection) -> None:
        """Those that failed on any worker: one that went on with such a metric would wait for the others."""
        names = [str(name) for name in metrics.keys(keep_base=True)]
        if not names:
            return
        fails = torch.tensor([name in self.failed for name in names], dtype=torch.float64)
        for name, failed in zip(names, self._strategy.sum(fails).tolist(), strict=True):
            if failed:
                self.failed.setdefault(name, "it failed on another worker, whose log says why")
                metrics.pop(name)

    def _batches(self) -> Iterable[Loaded]:
        worker = self._strategy.worker
        if self._shared:
            return self._loader.once(worker.rank, worker.world_size, self._batch_size)
        return self._loader.once(0, 1, self._batch_size)

    def _computed(self, metrics: MetricCollection) -> dict[str, float]:
        """The metrics over all workers, of one value each."""
        for metric in metrics.values(copy_state=False):
            metric.sync_on_compute = self._shared
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="torchmetrics")
            each = metrics.items(keep_base=True, copy_state=False)
            self._each({str(name): metric.compute for name, metric in each})  # which keeps the values
        self._drop_failed(metrics)
        values = {name: torch.as_tensor(value) for name, value in metrics.compute().items()}
        for name in [name for name, value in values.items() if value.numel() != 1]:
            self.failed[name] = f"it has {values.pop(name).numel()} values, and a curve is of one"
        return {name: float(value) for name, value in values.items()}

    def _agreed(self, values: dict[str, float]) -> dict[str, float]:
        """The first worker's: decisions follow from these, so that workers have to hold the very same numbers."""
        numbers = self._strategy.broadcast(torch.tensor(list(values.values()), dtype=torch.float64)).tolist()
        return {f"{self._part}/{name}": number for name, number in zip(values, numbers, strict=True)}


def _in_full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _outputs_and_target(metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
    metrics.update(outputs, batch["target"])
