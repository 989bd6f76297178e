"""FSDP2: every worker holds a shard of the parameters, gradients and optimizer state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import cast

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_

from epochal.training.batch_norm import synchronised
from epochal.training.parallel import Many
from epochal.training.worker import Worker

BLOCK_PARAMETERS = 1_000_000
"""From this size on a block is gathered, used and freed on its own; smaller ones cost more messages than memory."""


class FSDP(Many):
    """Parameters are gathered block by block when they are needed. Every worker must run the model equally often."""

    lockstep = True

    def __init__(self, worker: Worker, block_parameters: int) -> None:
        super().__init__(worker)
        self.block_parameters = block_parameters

    def wrap(self, model: nn.Module, compiled: bool) -> nn.Module:
        device = self.worker.device
        self.module = synchronised(model, device).to(device)
        mesh = init_device_mesh(device.type, (self.worker.world_size,))
        for block in [*blocks(self.module, self.block_parameters), self.module]:
            if compiled:
                block.compile()
            fully_shard(block, mesh=mesh)
        return self.module

    @contextmanager
    def _unsynchronised(self) -> Iterator[None]:
        sharded = cast(FSDPModule, self.module)
        sharded.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            sharded.set_requires_gradient_sync(True)

    def accumulating(self) -> AbstractContextManager[object]:
        return self._unsynchronised()

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
        norm = clip_grad_norm_(parameters, limit)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm


def blocks(model: nn.Module, least: int) -> list[nn.Module]:
    """The modules to shard on their own, inner before outer.

    A block is an item of an ``nn.Sequential`` or ``nn.ModuleList`` (the repeated parts of a model) that holds at least
    ``least`` parameters outside of blocks within it. One that shares a parameter with another module is left to the
    model: a parameter can be in one shard only.
    """
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    taken: set[int] = set()
    return list(_blocks(model, least, uses, taken))


def _blocks(module: nn.Module, least: int, uses: Counter[int], taken: set[int]) -> Iterator[nn.Module]:
    for child in module.children():
        yield from _blocks(child, least, uses, taken)
        own = [parameter for parameter in child.parameters() if id(parameter) not in taken]
        repeated = isinstance(module, nn.Sequential | nn.ModuleList)
        shared = any(uses[id(parameter)] > 1 for parameter in own)
        if repeated and not shared and sum(parameter.numel() for parameter in own) >= least:
            taken.update(id(parameter) for parameter in own)
            yield child
