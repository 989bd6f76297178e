"""How the workers' models are kept as one: alone, replicated (DDP) or sharded (FSDP2).

Gradients are those of the mean over the global batch, whatever the workers' shares: a worker back-propagates its *sum*
of losses over the *global* weight, times ``Strategy.gradient_scale``, which undoes the mean over workers that torch
takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from epochal.training.batch_norm import synchronised
from epochal.training.worker import Worker


class Strategy(Protocol):
    """What the loop asks of a way to train in parallel."""

    worker: Worker
    module: nn.Module
    """The model without a wrapper: for validation, state and weights."""
    gradient_scale: float
    """What a worker's loss is multiplied with before the backward pass."""
    lockstep: bool
    """Whether the workers have to run the model together even where one has no samples."""

    def wrap(self, model: nn.Module, compiled: bool) -> nn.Module:
        """Move the model to the device and return what the task calls in training. Afterwards ``module`` is set.

        Every worker's model must have been built from the same seed.
        """

    def accumulating(self) -> AbstractContextManager[object]:
        """The context of a micro-batch that is not the last of its step: gradients stay on the worker."""

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
        """Scale the gradients down to the total norm ``limit``; their norm before that, a scalar."""

    def sum(self, values: Tensor) -> Tensor:
        """``values`` summed over the workers, in place."""

    def broadcast(self, values: Tensor) -> Tensor:
        """The first worker's ``values``, in place."""

    def barrier(self) -> None: ...


class Single:
    """One worker: no process group at all."""

    gradient_scale = 1.0
    lockstep = False
    module: nn.Module

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def wrap(self, model: nn.Module, compiled: bool) -> nn.Module:
        self.module = model.to(self.worker.device)
        if compiled:
            self.module.compile()
        return self.module

    def accumulating(self) -> AbstractContextManager[object]:
        return nullcontext()

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
        return clip_grad_norm_(parameters, limit)

    def sum(self, values: Tensor) -> Tensor:
        return values

    def broadcast(self, values: Tensor) -> Tensor:
        return values

    def barrier(self) -> None:
        return


class Many(Single):
    """What the strategies of several workers share: the default process group."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker)
        self.gradient_scale = float(worker.world_size)

    def sum(self, values: Tensor) -> Tensor:
        dist.all_reduce(values)
        return values

    def broadcast(self, values: Tensor) -> Tensor:
        dist.broadcast(values, src=0)
        return values

    def barrier(self) -> None:
        # A sum, because NCCL's barrier has to guess a device.
        dist.all_reduce(torch.zeros(1))


class DDP(Many):
    """Every worker holds the model; gradients are averaged as they appear."""

    replica: DistributedDataParallel

    def wrap(self, model: nn.Module, compiled: bool) -> nn.Module:
        device = self.worker.device
        self.module = synchronised(model, device).to(device)
        if compiled:
            self.module.compile()
        self.replica = _Replica(
            self.module,
            device_ids=[device] if device.type == "cuda" else None,
            # Batch norm's statistics are the same on every worker; no other buffer may depend on the batch.
            forward_sync_buffers=False,
            gradient_as_bucket_view=True,
        )
        self.replica.fix_order()
        return self.replica

    def accumulating(self) -> AbstractContextManager[object]:
        return self.replica.no_sync()


class _Replica(DistributedDataParallel):
    """DDP that adds gradients up in the same order from the first step on.

    DDP lays gradients out anew after its first step, by the order in which they appeared, and where a number lies
    decides in which order the workers' parts of it are added. The first step after a resume then rounds differently
    from the same step of an unbroken run. This one starts with the layout that it keeps: last parameter first, which
    is the order in which gradients appear in a model whose modules are defined in the order of their use.
    """

    def _build_params_for_reducer(self) -> tuple[list[nn.Parameter], list[bool]]:
        parameters, sparse = super()._build_params_for_reducer()  # type: ignore[no-untyped-call]
        return parameters[::-1], sparse[::-1]

    def fix_order(self) -> None:
        self.reducer._push_all_rebuilt_params()


def strategy_for(name: str, worker: Worker) -> Strategy:
    """The strategy called ``ddp`` or ``fsdp``; a lone worker needs neither."""
    if worker.world_size == 1:
        return Single(worker)
    if name == "ddp":
        return DDP(worker)
    from epochal.training import sharding

    return sharding.FSDP(worker, sharding.BLOCK_PARAMETERS)
