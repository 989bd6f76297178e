"""What forward passes write into a model: the same on every worker, or named."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from epochal.catalog.optimizers import is_sharded
from epochal.errors import TrainingError, did_you_mean, some
from epochal.training.weights import matching
from epochal.training.worker import Worker


def varying(model: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """The names of the buffers that match a shell pattern of ``train.varying_buffers``.

    Raises:
        TrainingError: a pattern matches nothing.
    """
    names = tuple(name for name, _ in model.named_buffers())
    for pattern in patterns:
        if not matching(names, [pattern]):
            hint = did_you_mean(pattern, names) if names else "the model has no buffers"
            raise TrainingError(f"train.varying_buffers: no buffer matches {pattern!r}", hint)
    return matching(names, patterns)


def refuse_apart(
    model: nn.Module, besides: Collection[str], total: Callable[[Tensor], Tensor], worker: Worker, trained: bool
) -> None:
    """Compare buffers and parameters that are not ``trained`` with the other workers', or all of them.

    Batch norms are left out, whose statistics are made the same, what ``besides`` names, and shards. ``total`` sums a
    tensor over all workers.

    Raises:
        TrainingError: on every worker the same, with the names of what differs.
    """
    norms = {buffer for module in model.modules() if isinstance(module, _BatchNorm) for buffer in module.buffers()}
    tensors = {
        **{name: one for name, one in model.named_buffers() if one not in norms and name not in besides},
        **{name: one for name, one in model.named_parameters() if trained or not one.requires_grad},
    }
    compared = {name: _digest(one.detach()) for name, one in tensors.items() if not is_sharded(one)}
    if not compared:
        return
    table = torch.zeros(worker.world_size, len(compared), 3, dtype=torch.float64)
    table[worker.rank] = torch.stack(list(compared.values())).cpu()
    table = total(table)
    # Not to the last bit: another kind of processor may round otherwise.
    apart = (table - table[:1]).abs() > 1e-6 * table[:1, :, 2:] + 1e-12
    if names := [name for name, differs in zip(compared, apart.any(2).any(0).tolist(), strict=True) if differs]:
        raise TrainingError(
            f"{some(names)} became different on different workers: a forward pass writes from its own samples",
            "train on one worker, or name such buffers in train.varying_buffers: each forward pass then begins with"
            " those of the first worker",
        )


def _digest(tensor: Tensor) -> Tensor:
    """Numbers that differ where tensors do, unless someone wants them to agree: the size and two sums, (3,)."""
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    values = torch.nan_to_num(real if real.is_floating_point() else real.double())
    sums = [values.sum(dtype=torch.float64), values.abs().sum(dtype=torch.float64)]
    return torch.stack([sums[0].new_tensor(tensor.numel()), *sums])
