"""What a task is: what batches, loss and metrics mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from epochal.catalog.data import Batch
from epochal.errors import EpochalError

if TYPE_CHECKING:  # only a validation has to wait for its import
    from PIL.Image import Image
    from torchmetrics import Metric, MetricCollection


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
    outputs: Any
    """What ``Task.metrics`` take: a tensor, or several in mappings and tuples."""
    logs: Mapping[str, Tensor] = {}
    """Sums like ``total``, each a scalar, that are shown beside the loss: ``train/<name>`` and ``val/<name>``, over the
    sum of ``weight``. The same names for every batch."""

    def counts_for(self, samples: int) -> float | Tensor:
        """The weight of a batch of so many samples."""
        return samples if self.weight is None else self.weight


@runtime_checkable
class Task(Protocol):
    """The meaning of a batch."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """Run the model. An empty batch gives a total of zero that can be back-propagated."""

    def metrics(self) -> MetricCollection:
        """Fresh metrics (without prefix) for a validation pass. ``update(outputs, batch["target"])`` feeds them, unless
        the task says how: see ``FeedsMetrics``."""


@dataclass(frozen=True)
class Phase:
    """One loss of an optimizer step, with the parameters that are trained on it: shell patterns of their names."""

    name: str
    parameters: tuple[str, ...]


@runtime_checkable
class Phased(Protocol):
    """A task whose step has several losses, one after another on the same batch: a GAN's has two.

    Each parameter that is trained belongs to one phase, and changes before the next phase begins. ``train/loss`` is the
    sum over the phases, beside ``train/<phase>_loss``.
    """

    phases: Sequence[Phase]

    def loss(self, model: nn.Module, batch: Batch, phase: Phase | None = None) -> Loss:
        """That of one phase; None, as in validation, is all of them together."""

    def metrics(self) -> MetricCollection:
        """As ``Task.metrics``."""


@runtime_checkable
class FeedsMetrics(Protocol):
    """A task whose metrics take something else than its outputs and ``batch["target"]``."""

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        """Feed ``metrics``, one or several of those of ``Task.metrics``, with a validation batch."""


class EverySample(Protocol):
    """All training samples, of which each worker goes through its part."""

    def __call__(self, compute: Callable[[Batch], Tensor]) -> Tensor:
        """What ``compute`` gives for them, (samples, ...), in their order: all of it, on every worker."""


@runtime_checkable
class TakesStock(Protocol):
    """A task that looks at the model between two steps, and perhaps at all training samples: for a target network that
    follows now and then, or clusters whose sizes are counted."""

    def takes_stock(self, step: int) -> bool:
        """Whether it does before ``step``, from 0: a function of that alone, so that a resumed training does too."""

    def take_stock(self, model: nn.Module, step: int, every_sample: EverySample) -> None:
        """Write the model's buffers, and parameters, in place: the same on every worker. The model is in evaluation,
        and no gradient is computed."""


@runtime_checkable
class TellsMetrics(Protocol):
    """What a task may tell of its metrics without making them, which takes a second's import."""

    metric_names: Sequence[str]
    """Those of ``metrics()``."""
    known_metrics: Sequence[str]
    """Those that ``task.params.metrics`` may name."""

    def unmeasurable(self, samples: int, targets: Tensor | None) -> Mapping[str, str]:
        """Metrics that cannot be computed on that many validation samples with those targets, each with the reason.

        ``targets`` are None where they are not known.
        """


class NamedMetrics:
    """What tasks of the catalog have in common: their metrics are those that ``task.params.metrics`` names."""

    metric_names: Sequence[str]

    def unmeasurable(self, samples: int, targets: Tensor | None) -> Mapping[str, str]:
        """As ``TellsMetrics.unmeasurable``: all can be computed, unless the task knows better."""
        return {}

    def named(self, known: Mapping[str, Callable[[], Metric]]) -> MetricCollection:
        """Fresh ones, of those that are ``known``."""
        from torchmetrics import MetricCollection

        # No compute groups: they form at the first update, and a worker without samples would not form them.
        return MetricCollection({name: known[name]() for name in self.metric_names}, compute_groups=False)


@runtime_checkable
class ChecksTargets(Protocol):
    """A task that not every value suits which the target's field may have."""

    suitable: str
    """What its targets are, in words."""

    def unsuitable(self, targets: Tensor) -> Tensor:
        """The rows of ``targets`` (batch, *shape) that are something else: (rows,)."""


@runtime_checkable
class TakesScalars(Protocol):
    """A task whose loss takes some of its numbers as tensors too, so that trials which differ in them train as one."""

    @property
    def scalars(self) -> Mapping[str, float]:
        """Those numbers, by name."""

    def with_scalars(self, values: Mapping[str, Tensor]) -> Task:
        """The same task with these, each a scalar, in place of its own."""


@dataclass(frozen=True)
class Samples:
    """Some validation samples to draw, on the CPU, and what the model gave for them (``Loss.outputs``).

    ``classes`` are the names of the target's, empty where it has none. ``model`` is the one that is trained, in
    evaluation, for tasks that show what it makes by itself; None where one worker alone cannot run it.
    """

    batch: Batch
    outputs: Any
    classes: tuple[str, ...] = ()
    model: nn.Module | None = None


@runtime_checkable
class Draws(Protocol):
    """A task that shows what its model does. What goes wrong here ends no training."""

    def pictures(self, samples: Samples) -> Mapping[str, Image | str]:
        """Pictures and texts, by the names of their files without the ending.

        Steps wait for it, of which it may take a fiftieth; random numbers are drawn from a generator of its own.
        """


def fitting(outputs: Any, shape: Sequence[int], task: str) -> Tensor:
    """A model's ``outputs`` in that ``shape``, (batch, ...).

    Raises:
        EpochalError: they are no tensor, or have more or fewer values a sample.
    """
    expected = f"({', '.join(['batch', *map(str, shape[1:])])})"
    if not isinstance(outputs, Tensor):
        told = f"the model gives a {type(outputs).__name__}, and {task} needs a tensor {expected}"
        raise EpochalError(told, "return the tensor from its forward")
    if outputs.shape[:1] != tuple(shape[:1]) or outputs.numel() != prod(shape):
        told = f"the model gives {tuple(outputs.shape)} for {shape[0]} samples, and {task} needs {expected}"
        raise EpochalError(told, "build its last layer with info.target.width outputs")
    return outputs.reshape(shape)


def in_fp32(outputs: Tensor) -> Tensor:
    """Those of 16 bits as fp32, to compute a loss of; others as they are.

    A loss of 16 bits keeps three digits of the sum over a batch, and of the factor that its gradient begins with.
    autocast computes some of torch's losses in fp32 by itself, other ones on a GPU than on a CPU.
    """
    return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs
