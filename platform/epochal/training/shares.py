"""Whether a training's result depends on how its samples are shared among workers and forward passes.

The gradient of a global batch is the sum of its shares' gradients where the loss of some samples is the sum of their
losses, and where a forward pass leaves nothing behind that depends on its samples. Four samples tell: they are run as
one batch and as two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from epochal.catalog.data import Batch, DataInfo, LoadedData
from epochal.catalog.task import Task
from epochal.errors import Problem, SpecError, some
from epochal.spec.job import JobSpec
from epochal.training import seeding
from epochal.training.fetching import some_of
from epochal.training.parallel import behind
from epochal.training.sampler import micro_batches, sampler_of
from epochal.training.step import loss_of
from epochal.training.weights import freeze, matching
from epochal.training.worker import CPU

MOST_PARAMETERS = 20_000_000
MOST_FLOPS = 10**10
"""A larger model, or one that takes more for the forward pass of a sample (and memory for what it gives on its way), is
not looked at beforehand: its workers compare notes in the first step."""

_SEEDS = range(1, 7)
"""Of the further passes of a model that draws random numbers: a layer dropped every tenth time is seen in one of them
where there are some of those layers."""


@dataclass(frozen=True)
class Habits:
    """What a model and a task do beyond adding up samples: names of modules, buffers and parameters."""

    mixing: str = ""
    """What first makes a sample's result depend on the others of its batch; empty where nothing does."""
    sampled: tuple[str, ...] = ()
    """Buffers and parameters that a forward pass writes from its samples."""
    counted: tuple[str, ...] = ()
    """Those that it writes whatever the samples are: counters, power iterations."""
    sometimes: tuple[str, ...] = ()
    """Parameters that get a gradient from some forward passes only."""


def refuse_dependent(spec: JobSpec, data: LoadedData, model: nn.Module, task: Task) -> None:
    """Refuse what would make the result depend on the number of workers. ``model`` is on the CPU, and stays as it is.

    Raises:
        SpecError: one problem for each kind, with the names of what causes it.
    """
    resources, train = spec.resources, spec.train
    sampler = sampler_of(data, spec)
    batch = min(sampler.global_batch_size, sampler.size)
    counts = range(resources.min_workers, resources.max_workers + 1)
    split = any(micro_batches(batch, count, train.micro_batch_size) > 1 for count in counts)
    if not (split or resources.max_workers > 1) or sampler.size < 4:
        return
    if _is_large(model, data.info, task):
        return

    def copied() -> tuple[nn.Module, Task]:
        # Not built once more: a constructor of the user's own may print, or take long.
        copy = deepcopy(model)
        freeze(copy, train.freeze)
        return copy, task

    few = [index % len(data.train) for index in sampler.order(0)[:4].tolist()]  # of a stream there are any number here
    habits = observe(copied, some_of(data.train, few, data, spec))
    if found := tuple(problems(habits, spec, split)):
        raise SpecError("the job spec", found)


def _is_large(model: nn.Module, info: DataInfo, task: Task) -> bool:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    values = max(prod(one.shape) for one in info.fields.values())
    # What most models take at the most: every parameter once for each of a sample's values, as its pixels.
    if parameters > MOST_PARAMETERS or 2 * parameters * values <= MOST_FLOPS:
        return parameters > MOST_PARAMETERS
    two = {name: torch.zeros((2, *one.shape), dtype=one.dtype, device="meta") for name, one in info.fields.items()}
    with FlopCounterMode(display=False) as counter, torch.no_grad(), suppress(Exception):  # it may look at values
        loss_of(task, deepcopy(model).to("meta"), two)
    return bool(counter.get_total_flops() > 2 * MOST_FLOPS)


def problems(habits: Habits, spec: JobSpec, split: bool) -> Iterator[Problem]:
    """What to say of them, where a step is ``split`` into several forward passes, or has several workers."""
    workers, train = spec.resources.max_workers, spec.train
    shared = ("resources.workers", workers) if workers > 1 else ("train.micro_batch_size", train.micro_batch_size)
    if habits.mixing:
        yield Problem(shared[0], f"shares each batch out, and {habits.mixing}", value=shared[1],
                      hint="return sums over the samples, never means; what compares the samples of a batch needs "
                      "resources.workers: 1 and no train.micro_batch_size")  # fmt: skip
    sampled, counted = (
        [name for name in names if not matching([name], train.varying_buffers)]
        for names in (habits.sampled, habits.counted)
    )
    if workers > 1 and sampled:
        yield Problem("resources.workers", f"a forward pass writes {some(sampled)} from the samples of its own worker",
                      value=workers, hint="use 1, or name such buffers in train.varying_buffers: each forward pass "
                      "then begins with those of the first worker")  # fmt: skip
    if split and counted:
        yield Problem("train.micro_batch_size", f"each forward pass changes {some(counted)}, and how many a step takes "
                      "depends on the number of workers", value=train.micro_batch_size,
                      hint="remove it, or name such buffers in train.varying_buffers")  # fmt: skip
    if workers > 1 and habits.sometimes and not train.find_unused_parameters:
        told = f"{some(habits.sometimes)} get a gradient from some forward passes only"
        if spec.resources.strategy == "ddp":
            yield Problem("train.find_unused_parameters", told, value=False, hint="set it to true")
        else:
            yield Problem("resources.strategy", told, value="fsdp",
                          hint="use ddp, with train.find_unused_parameters: true")  # fmt: skip


def observe(build: Callable[[], tuple[nn.Module, Task]], batch: Batch) -> Habits:
    """The habits of what ``build`` makes, on a ``batch`` of four samples. Generators are left as they were.

    Batch norms and dropout are left out: those have rules of their own.
    """
    before = seeding.capture(CPU)
    try:
        seeding.start(0)
        return _observed(*build(), batch)
    except Exception:  # whoever computes with it next raises the same, and says where
        return Habits()
    finally:
        seeding.restore(before, CPU)


class _Pass(NamedTuple):
    total: float
    weight: float
    outputs: list[tuple[str, Tensor]]
    written: dict[str, Tensor]
    used: frozenset[str]
    drew: bool


def _observed(model: nn.Module, task: Task, batch: Batch) -> Habits:
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm | _DropoutNd):
            module.eval()
    kept = {name: tensor.detach().clone() for name, tensor in _tensors(model)}
    parts = [batch, *({name: tensor[half] for name, tensor in batch.items()} for half in (slice(2), slice(2, 4)))]
    look = partial(_pass, task, model, kept)
    passes = [look(part, 0) for part in parts]
    drew = any(one.drew for one in passes)
    uses = [one.used for one in (*passes, *(look(parts[1], seed) for seed in _SEEDS if drew))]
    sometimes = frozenset.union(*uses) - frozenset.intersection(*uses)
    written = {name for one in passes for name in one.written}
    sampled = {name for name in written if not _same([one.written.get(name) for one in passes])}
    if drew or sampled:  # then passes differ in training; what is written has a rule of its own
        model.eval()
        passes = [look(part, 0) for part in parts]
    return Habits(
        mixing="" if sometimes else _mixing(passes, model, task),
        sampled=tuple(name for name in kept if name in sampled),
        counted=tuple(name for name in kept if name in written - sampled),
        sometimes=tuple(name for name in kept if name in sometimes),
    )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _pass(task: Task, model: nn.Module, kept: dict[str, Tensor], batch: Batch, seed: int) -> _Pass:
    """One forward pass from the state that was ``kept``."""
    for name, now in list(_tensors(model)):
        if name in kept and not _equal(now, kept[name]):
            now.data = kept[name].clone()
    seeding.start(seed)
    before = seeding.capture(CPU)
    outputs: list[tuple[str, Tensor]] = []
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, _: object, output: object) -> None:
        outputs.extend((names[module], one.detach()) for one in tree_leaves(output)[:1] if isinstance(one, Tensor))

    hooks = [module.register_forward_hook(note) for module in names]
    try:
        loss = loss_of(task, model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    named = dict(model.named_parameters())
    used = behind(loss.total)
    return _Pass(
        float(loss.total.detach()),
        float(loss.counts_for(len(next(iter(batch.values()))))),
        outputs,
        {name: now.detach().clone() for name, now in _tensors(model) if not _same([now, kept.get(name)])},
        frozenset(name for name, one in named.items() if used is None or one in used),
        seeding.capture(CPU) != before,
    )


def _same(tensors: Sequence[Tensor | None]) -> bool:
    first, *others = tensors
    return all(other is first or _equal(first, other) for other in others)


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    """To the last bit, NaN where there is NaN."""
    if one is None or other is None or one.shape != other.shape:
        return False
    both_nan = one.is_floating_point() and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    return both_nan or torch.equal(one, other)


def _near(one: Tensor, other: Tensor) -> bool:
    """But for rounding, which is that of another order of additions; also where it is not finite."""
    one, other = one.double(), other.double()
    difference = (one - other).abs().max()
    return not bool(difference > 1e-3 * one.abs().max() + 1e-6)


def _mixing(passes: Sequence[_Pass], model: nn.Module, task: Task) -> str:
    """What is not the sum, or the row of, its parts."""
    whole, *halves = passes
    sums = [
        (getattr(whole, of), sum(getattr(half, of) for half in halves), sum(abs(getattr(half, of)) for half in halves))
        for of in ("total", "weight")
    ]
    # Not so where one is not finite: then there is nothing to compare.
    if not any(abs(together - apart) > 1e-3 * size + 1e-6 for together, apart, size in sums):
        return ""
    for (name, together), *apart in zip(*(one.outputs for one in passes), strict=False):
        parts = [tensor for _, tensor in apart]
        if all(tensor.dim() and len(tensor) for tensor in (together, *parts)):
            rows = torch.cat(parts) if len({part.shape[1:] for part in parts}) == 1 else parts[0]
            if rows.numel() and rows.shape == together.shape and not _near(together, rows):
                kind = type(model.get_submodule(name)).__name__
                where = f"{name} ({kind})" if name else kind
                return f"what {where} gives for a sample depends on the others of its batch"
    return f"the loss of {type(task).__name__} for four samples is not the sum of those for two and two"
