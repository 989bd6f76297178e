"""What a job spec would run and what that costs, without running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from epochal.catalog.build import build_model, build_optimizer, build_task, load_data
from epochal.catalog.data import DataInfo, LoadedData, Split
from epochal.catalog.task import Task
from epochal.catalog.understood import Understood
from epochal.errors import CodeError, EpochalError, NotFoundError, Problem, SpecError
from epochal.own_code import place
from epochal.redaction import named
from epochal.spec.job import JobSpec, Optimizer
from epochal.spec.section import is_import_path
from epochal.training import seeding
from epochal.training.batch_norm import refuse_shares
from epochal.training.check import check, other_types, summarized
from epochal.training.data_summary import ClassCount
from epochal.training.fetching import some_of
from epochal.training.phases import passes
from epochal.training.precision import DTYPES
from epochal.training.sampler import Sampler, micro_batches, part, sampler_of
from epochal.training.shares import MOST_PARAMETERS, refuse_dependent
from epochal.training.step import loss_of
from epochal.training.weights import freeze, start_from

MAX_PARAMETERS = 15_000_000
MAX_FLOPS = 10**10
"""A model that has more, or takes more for a sample, is not tried: it should take a second at most."""


@dataclass(frozen=True)
class Cost:
    """Of one optimizer step over the global batch, and of holding the model once.

    ``flops`` are those of matrix products, convolutions and attention, forwards and backwards; sizes are in bytes.
    """

    parameters: int
    trainable: int
    flops: int
    weights: int
    gradients: int
    optimizer_state: int
    in_step: int
    """What a worker holds beside these while a step runs, activations not counted: in 16 bits the copies of the weights
    that autocast makes; under ``fsdp`` what is gathered at a time, and its gradients."""


@dataclass(frozen=True)
class Workers:
    """Who does the work: ``shares`` are the samples of a global batch on the busiest and on the idlest worker."""

    count: int
    least: int
    strategy: str
    shares: tuple[int, int]
    micro_batches: int
    bytes_each: int
    """The most on one worker: weights, gradients, optimizer state and ``Cost.in_step``. Activations come on top."""


@dataclass(frozen=True)
class Total:
    """Resources of all workers together; memory in bytes, None where the spec leaves it open."""

    cpus: float
    gpus: float
    memory: int | None


@dataclass(frozen=True)
class Plan:
    """What would run, for the greatest number of workers that the spec allows. A stream has no number of training
    samples and no epochs: those are 0."""

    train_samples: int
    validation_samples: int
    data_digest: str
    understood: tuple[Understood, ...]
    """What the dataset took each part of its files for."""
    classes: tuple[ClassCount, ...]
    """Of the target, with their samples, where those can be counted without reading any."""
    steps_per_epoch: int
    total_steps: int
    epochs: float
    global_batch_size: int
    cost: Cost
    workers: Workers
    resources: Total
    notes: tuple[str, ...]
    """What a person should know beforehand: metrics that are left out, and the like."""
    test_samples: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan(spec: JobSpec, folder: Path, loaded: LoadedData | None = None) -> Plan:
    """Load the data where it is not ``loaded``, build the model without memory, count, and try two samples.

    ``folder`` is what relative paths of the data start from. The user's own code must be on the import path.

    Raises:
        SpecError, NotFoundError, CodeError: something that the spec names cannot be built, or could not be trained.
    """
    data = loaded or load_data(spec.data, folder)
    task = build_task(spec.task, spec.data, data.info)
    checked = check(spec, data, task)
    summary = summarized(spec.data.name, data)
    sampler = sampler_of(data, spec)
    per_epoch = 0 if data.endless else sampler.steps_per_epoch
    batch = min(spec.train.global_batch_size, sampler.size)
    total_steps = sampler.total_steps(spec.train)
    with blaming("model", "cannot be trained on this data"):
        cost = measure(spec, data.info, task, sampler)
    tried: tuple[str, ...] = ("the model is too large to be tried with samples of the data here",)
    if cost.parameters <= MOST_PARAMETERS:
        seeding.start(spec.train.seed)
        with blaming("model", "cannot be built"):
            model = build_model(spec.model, data.info)
        refuse_dependent(spec, data, model, task)
        if cost.parameters <= MAX_PARAMETERS and cost.flops <= MAX_FLOPS * batch:
            tried = _tried(spec, data, model, task, folder)
    count, memory = spec.resources.max_workers, spec.resources.memory_per_worker
    return Plan(
        train_samples=data.train_samples,
        validation_samples=len(data.validation) if data.validation is not None else 0,
        data_digest=data.digest,
        understood=summary.understood,
        classes=summary.classes,
        steps_per_epoch=per_epoch,
        total_steps=total_steps,
        epochs=total_steps / per_epoch if per_epoch else 0.0,
        global_batch_size=batch,
        cost=cost,
        workers=_workers(spec, batch, cost),
        resources=Total(
            cpus=count * spec.resources.cpus_per_worker,
            gpus=count * spec.resources.gpus_per_worker,
            memory=None if memory is None else count * int(memory),
        ),
        notes=(*checked.notes, *tried),
        test_samples=summary.test_samples,
    )


def measure(spec: JobSpec, info: DataInfo, task: Task, sampler: Sampler) -> Cost:
    """The cost of one step over a global batch.

    It is run on the meta device, which computes nothing. A model that looks at values cannot run there: then two
    samples are run for real, and their FLOPs scaled.
    """
    batch = min(sampler.global_batch_size, sampler.size)
    try:
        return _measured(spec, info, task, sampler, batch, torch.device("meta"))
    except EpochalError:
        raise
    except Exception:
        few = min(2, batch)
        cost = _measured(spec, info, task, sampler, few, torch.device("cpu"))
        return Cost(**{**asdict(cost), "flops": cost.flops * batch // few})


def _measured(spec: JobSpec, info: DataInfo, task: Task, sampler: Sampler, samples: int, device: torch.device) -> Cost:
    with device:
        model = build_model(spec.model, info)
        batch = {name: torch.zeros((samples, *one.shape), dtype=one.dtype) for name, one in info.fields.items()}
    with blaming("train.freeze" if spec.train.freeze else "model", "cannot be applied"):
        freeze(model, spec.train.freeze)
    counts = range(spec.resources.min_workers, spec.resources.max_workers + 1)
    refuse_shares(model, sampler, spec.train, counts)
    parameters = list(model.parameters())
    named = {name: one for name, one in model.named_parameters() if one.requires_grad}
    trainable = list(named.values())
    dtype = DTYPES.get(spec.train.precision)
    copied = 0 if dtype is None else _count(parameters) * dtype.itemsize
    with FlopCounterMode(display=False) as counter:
        for one in passes(task, model):
            loss_of(one, model, batch).total.backward()  # type: ignore[no-untyped-call]
    return Cost(
        parameters=_count(parameters),
        trainable=_count(trainable),
        flops=counter.get_total_flops(),
        weights=sum(parameter.nbytes for parameter in parameters),
        gradients=sum(parameter.nbytes for parameter in trainable),
        optimizer_state=_state_bytes(spec.train.optimizer, named),
        in_step=_gathered(spec, model) if spec.resources.strategy == "fsdp" else copied,
    )


def _gathered(spec: JobSpec, model: nn.Module) -> int:
    """What is outside of blocks is whole for the length of a step, weights and gradients. The greatest block counts:
    its weights, fetched and unpacked while the next is fetched; its gradients, their copy in fp32 to be summed, and the
    worker's part of the sum, half of it at the most.
    """
    from epochal.training.sharding import BLOCK_PARAMETERS, blocks, refuse_unshardable  # a second's import

    refuse_unshardable(model)
    width = DTYPES.get(spec.train.precision, torch.float32).itemsize
    seen: set[nn.Parameter] = set()
    greatest = 0
    for block in blocks(model, BLOCK_PARAMETERS):
        own = [parameter for parameter in block.parameters() if parameter not in seen]
        seen.update(own)
        greatest = max(greatest, _count(own))
    rest = _count([parameter for parameter in model.parameters() if parameter not in seen])
    return 2 * width * rest + (4 * width + 4 + 2) * greatest


def _count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _state_bytes(choice: Optimizer, parameters: dict[str, nn.Parameter]) -> int:
    """What the optimizer holds after a step. One that looks at values steps with a real parameter of each shape."""
    try:
        return _stepped(choice, parameters)
    except RuntimeError:
        shapes = Counter((parameter.shape, parameter.dtype) for parameter in parameters.values())
        alike = choice.model_copy(update={"groups": []})
        return sum(count * _stepped(alike, {"one": _zeros(*shape)}) for shape, count in shapes.items())


def _stepped(choice: Optimizer, parameters: dict[str, nn.Parameter]) -> int:
    optimizer = build_optimizer(choice, parameters)
    optimizer.step()
    tensors = (value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value))
    return sum(tensor.nbytes for tensor in tensors)


def _zeros(shape: torch.Size, dtype: torch.dtype) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros(shape, dtype=dtype))
    parameter.grad = torch.zeros_like(parameter)
    return parameter


def _workers(spec: JobSpec, batch: int, cost: Cost) -> Workers:
    count = spec.resources.max_workers
    shares = [end - start for start, end in (part(batch, rank, count) for rank in (0, count - 1))]
    means = cost.gradients if spec.train.average else 0  # as large: of each parameter that is trained
    held = cost.weights + cost.gradients + cost.optimizer_state + means
    return Workers(
        count=count,
        least=spec.resources.min_workers,
        strategy=spec.resources.strategy,
        shares=(shares[0], shares[1]),
        micro_batches=micro_batches(batch, count, spec.train.micro_batch_size),
        bytes_each=(-(-held // count) if spec.resources.strategy == "fsdp" else held) + cost.in_step,
    )


def _tried(spec: JobSpec, data: LoadedData, model: nn.Module, task: Task, folder: Path) -> tuple[str, ...]:
    """Train the ``model``, on the CPU, on two samples and validate with two; what is to be said of it.

    ``folder`` is what a relative ``train.init_from`` starts from; one that is a job's is not looked at.

    Raises:
        SpecError: the model, or the task, cannot take them.
    """
    told = []
    start = spec.train.init_from
    if start is not None and (folder / start).exists():
        with blaming("train.init_from", "cannot be started from"):
            told.append(f"weights to start from: {start_from(model, folder / start, spec.train.init_except)}")
    elif start is not None:
        elsewhere = "a job of that name is looked for where this one runs"
        told.append(f"weights to start from: {start} is no file here; {elsewhere}")
    try:
        _try(spec, data, model.train(), task)
    except SpecError as error:
        if not (is_import_path(spec.model.name) and spec.resources.gpus_per_worker):
            raise
        told.append(f"the model, which may need a GPU, failed on the CPU: {error.problems[0]}")
    return tuple(told)


def _try(spec: JobSpec, data: LoadedData, model: nn.Module, task: Task) -> None:
    with blaming("data", "samples of the training data cannot be read"):
        batch = some_of(data.train, _ends(data.train), data, spec)
    if odd := tuple(other_types(spec, data.info, "train", batch)):
        raise SpecError("the job spec", odd)
    with blaming("model", "cannot be trained on samples of this data"):
        losses = []
        for one in passes(task, model):
            losses.append(loss_of(one, model, batch).total)
            losses[-1].backward()  # type: ignore[no-untyped-call]
    if not torch.isfinite(loss := torch.stack(losses).sum()):
        told = f"the loss of two samples is {loss.item():g} before the first step"
        raise SpecError("the job spec", (Problem("data", told, hint="does the data hold NaN, or numbers too large?"),))
    for name, split in data.splits():
        if name == "train" or not len(split):
            continue
        with blaming("data", f"samples of the {name} data cannot be read"):
            batch = some_of(split, _ends(split), data, spec)
        with blaming("model", "cannot be validated on samples of this data"), torch.no_grad():
            loss_of(task, model.eval(), batch)


def _ends(split: Split) -> list[int]:
    return sorted({0, len(split) - 1})


@contextmanager
def blaming(path: str, what: str) -> Generator[None]:
    """Whatever is raised within the block becomes a problem at ``path`` of the spec, with the line of the user's code.

    Raises:
        SpecError
    """
    try:
        yield
    except (SpecError, CodeError, NotFoundError):
        raise
    except EpochalError as error:
        raise SpecError("the job spec", (Problem(path, error.message, hint=error.hint),)) from error
    except Exception as error:
        where = place(error)
        told = f"{what}: {named(error)}{f' ({where})' if where else ''}"
        raise SpecError("the job spec", (Problem(path, told),)) from error
