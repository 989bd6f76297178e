"""FSDP2: every worker holds a shard of the parameters, gradients and optimizer state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import clip_grad_norm_

from epochal.errors import Problem, SpecError
from epochal.spec.job import Train
from epochal.training.parallel import Computation, Many, compile_in_place
from epochal.training.precision import DTYPES
from epochal.training.worker import Worker

Result = TypeVar("Result")

BLOCK_PARAMETERS = 1_000_000
"""From this size on a block is gathered, used and freed on its own; smaller ones cost more messages than memory."""

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class FSDP(Many):
    """Parameters are gathered block by block when they are needed. Every worker must run the model equally often.

    In 16 bits they are gathered as such, so that nothing is left for autocast to copy: its copies of fp32 parameters
    would stay, whole, from the forward to the backward pass. Gradients are summed in fp32, after every micro-batch, so
    that whole ones never outlive a block's backward pass.
    """

    lockstep = True

    def __init__(self, worker: Worker, train: Train, block_parameters: int) -> None:
        super().__init__(worker, train)
        self.block_parameters = block_parameters

    def wrap(self, model: nn.Module) -> None:
        device = self.worker.device
        refuse_unshardable(model)
        self.module = self._prepare(model)
        # The outermost is the computation of the loss: the task may call any part of the model.
        self._computation = Computation(self.module)
        mesh = init_device_mesh(device.type, (self.worker.world_size,))
        parts = blocks(self.module, self.block_parameters)
        if self.train.compile:
            compile_in_place(self.module, parts)
        dtype = DTYPES.get(self.train.precision)
        for part in [*parts, self._computation]:
            if dtype is not None:
                _keep_norms(part, mesh)
            fully_shard(part, mesh=mesh, mp_policy=_policy(dtype))

    def run(self, compute: Callable[[], Result]) -> Result:
        if torch.is_grad_enabled():
            self._spread()
        result: Result = self._computation(compute)
        return result

    def reshard(self) -> None:
        for part in self._computation.modules():
            if isinstance(part, FSDPModule):
                part.reshard()

    def only(self, trained: frozenset[str]) -> AbstractContextManager[object]:
        self.reshard()
        return super().only(trained)

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
        norm = clip_grad_norm_(parameters, limit)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _policy(dtype: torch.dtype | None) -> MixedPrecisionPolicy:
    # Activations are autocast's: it knows what has to be computed in fp32.
    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)


def _keep_norms(part: nn.Module, mesh: DeviceMesh) -> None:
    """Shard the part's normalisation layers as one group in fp32: they compute in it, and refuse other parameters."""
    norms: list[Any] = [module for module in part.modules() if isinstance(module, _NORMS) and _is_whole(module)]
    if norms:
        fully_shard(norms, mesh=mesh, mp_policy=_policy(None))


def _is_whole(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(isinstance(one, DTensor) for one in parameters)


def refuse_unshardable(model: nn.Module) -> None:
    """Tell of a parameter that one worker and ddp can train, and fsdp cannot shard.

    Raises:
        SpecError: it is a scalar, not contiguous, or of another dtype than most.
    """
    parameters = dict(model.named_parameters())
    ((usual, _),) = Counter(one.dtype for one in parameters.values()).most_common(1)
    for name, one in parameters.items():
        if not one.dim():
            told, hint = f"cannot shard {name}, a scalar", "give it one dimension, or use ddp"
        elif not one.is_contiguous():
            told, hint = f"cannot shard {name}, which is not contiguous", "call .contiguous() on its value, or use ddp"
        elif one.dtype != usual:
            told, hint = f"cannot shard {name}, of {one.dtype} beside {usual}", "make them one dtype, or use ddp"
        else:
            continue
        raise SpecError("the job spec", (Problem("resources.strategy", told, value="fsdp", hint=hint),))


def blocks(model: nn.Module, least: int) -> list[nn.Module]:
    """The modules to shard on their own, inner before outer.

    A block is an item of an ``nn.Sequential`` or ``nn.ModuleList`` (the repeated parts of a model) that holds at least
    ``least`` parameters outside of blocks within it. One that shares a parameter with another module is left to the
    model: a parameter can be in one shard only. So is a layer that normalises: it may have to be sharded in fp32.
    """
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    taken: set[int] = set()
    return list(_blocks(model, least, uses, taken))


def _blocks(module: nn.Module, least: int, uses: Counter[int], taken: set[int]) -> Iterator[nn.Module]:
    for child in module.children():
        yield from _blocks(child, least, uses, taken)
        own = [parameter for parameter in child.parameters() if id(parameter) not in taken]
        # A list within a list is never called itself, and so would never be gathered.
        repeated = isinstance(module, nn.Sequential | nn.ModuleList) and type(child).forward is not nn.Module.forward
        left = isinstance(child, _NORMS) or any(uses[id(parameter)] > 1 for parameter in own)
        if repeated and not left and sum(parameter.numel() for parameter in own) >= least:
            taken.update(id(parameter) for parameter in own)
            yield child
