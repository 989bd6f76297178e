"""Batch normalisation over the batches of all workers on CPU, where torch has none.

``torch.nn.SyncBatchNorm`` refuses CPU tensors. This one is exact for shares of any size, an empty one too.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from epochal.errors import Problem, SpecError
from epochal.spec.job import Train
from epochal.training.sampler import Sampler, micro_batches


class CpuSyncBatchNorm(_BatchNorm):
    """``nn.BatchNorm1d/2d/3d`` with statistics over all workers. x: (batch, channels, ...)."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        normalised: tuple[Tensor, ...] = _Normalise.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        output, mean, variance, count = normalised
        self._update_running(mean, variance, float(count))
        return output

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor, count: float) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        factor = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked or 1)
        unbiased = variance * (count / max(count - 1, 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), factor)


class _Normalise(torch.autograd.Function):
    """Chan, Golub and LeVeque's pairwise combination of moments (1979), with the gradient of batch norm.

    One message a layer and pass. The rest are torch's own kernels: they normalise by moments that are given, as in
    evaluation. What the moments' own dependence on x adds to its gradient is linear in x: one more such pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        rows = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        mean, variance, count = _moments(rows)
        output, _, _ = torch.native_batch_norm(rows, weight, bias, mean, variance, False, 0.0, eps)
        ctx.save_for_backward(rows, weight, mean, variance, count)
        ctx.mark_non_differentiable(mean, variance, count)
        ctx.eps, ctx.dtype = eps, x.dtype
        return output.to(x.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        rows, weight, mean, variance, count = ctx.saved_tensors
        if len(rows):
            x_gradient, weight_gradient, bias_gradient = torch.ops.aten.native_batch_norm_backward(
                gradient.to(rows.dtype), rows, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
        else:  # torch's kernel divides by its length
            x_gradient = torch.zeros_like(rows)
            weight_gradient, bias_gradient = torch.zeros_like(mean), torch.zeros_like(mean)
        sums = torch.stack([bias_gradient, weight_gradient])
        dist.all_reduce(sums)
        mean_gradient, mean_product = sums / count
        inverse = torch.rsqrt(variance + ctx.eps)
        scale = inverse if weight is None else inverse * weight
        zeros, ones = torch.zeros_like(mean), torch.ones_like(mean)
        slope = scale * inverse * mean_product
        offset = scale * mean_gradient - slope * mean
        x_gradient -= torch.native_batch_norm(rows, slope, offset, zeros, ones, False, 0.0, 0.0)[0]
        return (
            x_gradient.to(ctx.dtype),
            weight_gradient if ctx.needs_input_grad[1] else None,
            bias_gradient if ctx.needs_input_grad[2] else None,
            None,
        )


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (channels,), biased variance (channels,) and number of values a channel, over all workers."""
    channels = x.shape[1]
    count = x.numel() // channels
    if count:
        mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
    else:
        mean, variance = x.new_zeros(2, channels)
    mine = torch.cat([mean, variance * count, mean.new_tensor([count])])
    everyone = mine.new_empty(dist.get_world_size(), len(mine))
    dist.all_gather(list(everyone), mine)
    means, deviations, counts = torch.split(everyone, [channels, channels, 1], dim=1)
    total = counts.sum()
    mean = (means * counts).sum(0) / total
    deviation = deviations.sum(0) + (counts * (means - mean).square()).sum(0)
    return mean, deviation / total, total


_FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward, CpuSyncBatchNorm.forward)


def running_statistics(model: nn.Module) -> list[Tensor]:
    """The running means and variances of the model's batch norms, one-dimensional each."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [one for norm in norms for one in (norm.running_mean, norm.running_var) if one is not None]


def synchronise(model: nn.Module, device: torch.device) -> None:
    """Have every batch norm take the statistics of the global (micro-)batch.

    Each stays the very module that it is, with its hooks: the model may know it by another way than its children.

    Raises:
        SpecError: see ``refuse_own_forward``.
    """
    refuse_own_forward(model)
    kind = CpuSyncBatchNorm if device.type == "cpu" else nn.SyncBatchNorm
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, kind):
            module.__class__ = kind
            module.__dict__["process_group"] = None  # torch's own has one: that of all workers


def refuse_own_forward(model: nn.Module) -> None:
    """Refuse a batch norm that does more than normalise, as timm's apply an activation too: what is put in its place
    would leave that out.

    Raises:
        SpecError
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and type(module).forward not in _FORWARDS:
            kind = type(module).__name__
            told = f"cannot take the statistics of {name} over all workers: {kind} has a forward of its own"
            raise SpecError("the job spec", (Problem("train.batch_norm", told, value="sync", hint="use local"),))


def refuse_shares(model: nn.Module, sampler: Sampler, train: Train, counts: Collection[int]) -> None:
    """Make the first forward pass fail where, with one of these numbers of workers, a batch norm could not do its work:
    it would have a single value a channel in a later pass, or a part of the global batch in each.

    A lone worker would fail at a single value, an epoch later; several would go on, with a variance of zero in the
    running statistics. Whether there is one value a channel only the norm's input tells: a picture has as many as
    pixels.
    """
    together = train.batch_norm == "sync"
    if together and max(counts) > 1:
        refuse_own_forward(model)
    whole = min(sampler.global_batch_size, sampler.size)
    split = together and any(micro_batches(whole, count, train.micro_batch_size) > 1 for count in counts)
    fewest = None if split else min(sampler.fewest(count, train.micro_batch_size, together) for count in counts)
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (fewest is None or fewest <= 1):
            module.register_forward_pre_hook(partial(_refuse, name, sampler, train, fewest))


def _refuse(
    name: str, sampler: Sampler, train: Train, fewest: int | None, norm: nn.Module, inputs: tuple[Tensor, ...]
) -> None:
    """``fewest`` are the samples of the smallest forward pass; None where the batch is split, in which case the number
    does not matter."""
    if not norm.training or (fewest is not None and fewest * inputs[0].shape[2:].numel() > 1):
        return
    cannot = f"a single sample, which the batch norm {name or type(norm).__name__} cannot normalise"
    if fewest is None:
        told = f"splits the batch that the batch norm {name or type(norm).__name__} normalises: the number of workers"
        problem = Problem("train.micro_batch_size", f"{told} would decide into how many parts",
                          value=train.micro_batch_size, hint="remove it, or set train.batch_norm to local, which takes "
                          "each forward pass on each worker for itself")  # fmt: skip
    elif train.batch_norm == "local":
        left = cannot if fewest else f"no sample for the batch norm {name or type(norm).__name__}"
        problem = Problem("train.batch_norm", f"leaves a forward pass of a worker {left}", value="local",
                          hint="use sync, or another train.global_batch_size or micro_batch_size")  # fmt: skip
    else:
        problem = Problem("train.global_batch_size", f"leaves a batch of {cannot}", value=sampler.global_batch_size,
                          hint=f"leave more of {sampler.size:,} samples, or set train.drop_last")  # fmt: skip
    raise SpecError("the job spec", (problem,))
