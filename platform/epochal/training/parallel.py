"""How the workers' models are kept as one: alone, replicated (DDP) or sharded (FSDP2).

Gradients are those of the mean over the global batch, whatever the workers' shares: a worker back-propagates its *sum*
of losses over the *global* weight, times ``Strategy.gradient_scale``, which undoes the mean over workers that torch
takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.utils._pytree import tree_leaves

from epochal.errors import TrainingError, some
from epochal.redaction import said
from epochal.spec.job import Train
from epochal.training.batch_norm import running_statistics, synchronise
from epochal.training.worker import Worker
from epochal.training.written import refuse_apart, varying

Result = TypeVar("Result")


class Strategy(Protocol):
    """What the loop asks of a way to train in parallel."""

    worker: Worker
    module: nn.Module
    """The user's model, in training and in validation: no wrapper."""
    gradient_scale: float
    """What a worker's loss is multiplied with before the backward pass."""
    lockstep: bool
    """Whether the workers have to run the model together even where one has no samples."""

    def wrap(self, model: nn.Module) -> None:
        """Move the model to the device and make it one with those of the other workers. Afterwards ``module`` is set.

        Every worker's model must have been built from the same seed.
        """

    def run(self, compute: Callable[[], Result]) -> Result:
        """What ``compute`` gives, which calls ``module``; a backward pass from it leaves the gradient over all workers.

        Raises:
            TrainingError: parameters are left out in some steps only, and the spec does not say so.
        """

    def reshard(self) -> None:
        """After a validation the outermost part of a sharded model is still gathered: it would go on with those values,
        whatever is changed in the shards."""

    def only(self, trained: frozenset[str]) -> AbstractContextManager[object]:
        """The context of a phase, in which the parameters of these names alone get gradients."""

    def accumulating(self) -> AbstractContextManager[object]:
        """The context of a micro-batch that is not the last of its step: gradients stay on the worker."""

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
        """Scale the gradients down to the total norm ``limit``; their norm before that, a scalar."""

    def sum(self, values: Tensor) -> Tensor:
        """``values`` summed over the workers, in place."""

    def broadcast(self, values: Tensor) -> Tensor:
        """The first worker's ``values``, in place."""

    def reduced(self) -> None:
        """After the last backward pass of a step, before it changes the parameters.

        Raises:
            TrainingError: the workers have not all that they need of each other, or are no longer the same.
        """

    def settle(self) -> None:
        """Before the model is used for anything but training: give every worker the mean of the running statistics that
        ``batch_norm: local`` let drift apart. The training goes on as if that had not been done.

        Raises:
            TrainingError: a buffer differs between workers.
        """

    def barrier(self) -> None: ...


class Single:
    """One worker: no process group at all."""

    gradient_scale = 1.0
    lockstep = False
    module: nn.Module

    def __init__(self, worker: Worker, train: Train) -> None:
        self.worker = worker
        self.train = train

    def wrap(self, model: nn.Module) -> None:
        varying(model, self.train.varying_buffers)
        self.module = model.to(self.worker.device)
        if self.train.compile:
            compile_in_place(self.module)

    def run(self, compute: Callable[[], Result]) -> Result:
        return compute()

    def reshard(self) -> None:
        return

    def only(self, trained: frozenset[str]) -> AbstractContextManager[object]:
        return training_only(self.module, trained)

    def accumulating(self) -> AbstractContextManager[object]:
        return nullcontext()

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
        return clip_grad_norm_(parameters, limit)

    def sum(self, values: Tensor) -> Tensor:
        return values

    def broadcast(self, values: Tensor) -> Tensor:
        return values

    def reduced(self) -> None:
        return

    def settle(self) -> None:
        return

    def barrier(self) -> None:
        return


@contextmanager
def training_only(module: nn.Module, names: Collection[str]) -> Iterator[None]:
    """Within the block no other parameter of the ``module`` requires a gradient."""
    others = [one for name, one in module.named_parameters() if one.requires_grad and name not in names]
    for one in others:
        one.requires_grad_(False)
    try:
        yield
    finally:
        for one in others:
            one.requires_grad_(True)


class Many(Single):
    """What the strategies of several workers share: the default process group."""

    def __init__(self, worker: Worker, train: Train) -> None:
        super().__init__(worker, train)
        self.gradient_scale = float(worker.world_size)
        self._varying: tuple[str, ...] = ()
        self._compared = False

    def sum(self, values: Tensor) -> Tensor:
        dist.all_reduce(values)
        return values

    def broadcast(self, values: Tensor) -> Tensor:
        dist.broadcast(values, src=0)
        return values

    def reduced(self) -> None:
        if not self._compared:  # in the first step: what a forward pass writes of its own samples shows at once
            self._compared = True
            refuse_apart(self.module, self._varying, self.sum, self.worker, trained=True)

    def settle(self) -> None:
        self._average()
        self._spread()
        refuse_apart(self.module, self._varying, self.sum, self.worker, trained=False)

    def _prepare(self, model: nn.Module) -> nn.Module:
        """The model on its device, with batch norms as the spec wants them."""
        self._varying = varying(model, self.train.varying_buffers)
        if self.train.batch_norm == "sync":
            synchronise(model, self.worker.device)
        return model.to(self.worker.device)

    @torch.no_grad()
    def _spread(self) -> None:
        """Give every worker the first one's ``train.varying_buffers``."""
        for name in self._varying:
            self.broadcast(self.module.get_buffer(name))

    @torch.no_grad()
    def _average(self) -> None:
        if self.train.batch_norm == "sync" or not (running := running_statistics(self.module)):
            return
        packed = self.sum(torch.cat(running)) / self.worker.world_size
        for one, mean in zip(running, torch.split(packed, [len(one) for one in running]), strict=True):
            one.copy_(mean)

    def barrier(self) -> None:
        # A sum, because NCCL's barrier has to guess a device.
        dist.all_reduce(torch.zeros(1))


class Computation(nn.Module):
    """What torch takes for the model: whatever is computed with it, so that no part of it has to be called by torch."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, compute: Callable[[], Result]) -> Result:
        return compute()


class DDP(Many):
    """Every worker holds the model; gradients are averaged as they appear.

    DDP's own wrapper is around the computation of the loss, not around the model: the task sees the user's module and
    may call any part of it, and a parameter counts as used where the *loss* depends on it.
    """

    _replica: _Replica
    _accumulates = False

    def wrap(self, model: nn.Module) -> None:
        self.module = self._prepare(model)
        if self.train.compile:
            compile_in_place(self.module)
        self._looked = self.train.find_unused_parameters
        self._replica = _Replica(self.module, find_unused=self._looked)
        self._phases: dict[frozenset[str], tuple[_Replica, bool]] = {}

    @contextmanager
    def only(self, trained: frozenset[str]) -> Iterator[None]:
        """A phase has a replica of its own, which knows of its parameters only and so waits for no others'."""
        with super().only(trained):
            if not self._phases:  # that of `wrap` would wait for the gradients of all parameters, in each phase
                self._replica.release()
            if trained not in self._phases:
                looked = self.train.find_unused_parameters
                # Weights are the same since the replica of `wrap`.
                self._phases[trained] = _Replica(self.module, find_unused=looked, synchronise=False), looked
            self._replica, self._looked = self._phases[trained]
            yield
            self._phases[trained] = self._replica, self._looked

    def run(self, compute: Callable[[], Result]) -> Result:
        if not torch.is_grad_enabled():
            return compute()
        self._spread()
        if not self._looked:
            self._looked = True
            first = compute()
            if self._some_unused(first):
                self._replica.release()
                self._replica = _Replica(self.module, find_unused=True, synchronise=False)
            return self._replicated(lambda: first)
        return self._replicated(compute)

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        self._accumulates = True
        try:
            yield
        finally:
            self._accumulates = False

    def reduced(self) -> None:
        super().reduced()
        # At once: the next forward pass would say so after the parameters have changed, while the others wait.
        with self._telling():
            self._replica.reducer._rebuild_buckets()

    def _replicated(self, compute: Callable[[], Result]) -> Result:
        with self._telling(), self._replica.no_sync() if self._accumulates else nullcontext():
            result: Result = self._replica(compute)
        return result

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Name the parameters whose gradients DDP waits for."""
        try:
            yield
        except RuntimeError as error:
            told = said(error)
            if "Expected to have finished reduction in the prior iteration" not in told:
                raise
            names = self._replica.names_in(told)
            raise TrainingError(
                f"{some(names) or 'parameters'} got a gradient in the first step, and none in a later one",
                "set train.find_unused_parameters to true, which looks for such in every step",
            ) from error

    def _some_unused(self, result: Any) -> bool:
        """Whether any worker's loss leaves parameters out. To look in every step costs a message each."""
        used = behind(result)
        unused = used is not None and any(one.requires_grad and one not in used for one in self.module.parameters())
        return bool(self.sum(torch.tensor(float(unused))))


class _Replica(DistributedDataParallel):
    """DDP that adds gradients up in the same order from the first step on.

    DDP lays gradients out anew after its first step, by the order in which they appeared, and where a number lies
    decides in which order the workers' parts of it are added. The first step after a resume then rounds differently
    from the same step of an unbroken run. This one starts with the layout that it keeps: last parameter first, which
    is the order in which gradients appear in a model whose modules are defined in the order of their use.
    """

    def __init__(self, module: nn.Module, find_unused: bool, synchronise: bool = True) -> None:
        super().__init__(
            Computation(module),
            init_sync=synchronise,
            # Batch norm's statistics are equal, or made so by `settle`; no other buffer may depend on the batch.
            forward_sync_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=find_unused,
        )
        if not find_unused:  # then DDP keeps its first layout by itself
            self.reducer._push_all_rebuilt_params()

    def _build_params_for_reducer(self) -> tuple[list[nn.Parameter], list[bool]]:
        parameters, sparse = super()._build_params_for_reducer()  # type: ignore[no-untyped-call]
        return parameters[::-1], sparse[::-1]

    def names_in(self, message: str) -> list[str]:
        """The parameters that a message of DDP's names by their place."""
        names = [name for name, one in self.module.named_parameters() if one.requires_grad][::-1]
        places = re.search(r"Parameter indices which did not receive grad for rank \d+: ([\d ]+)", message)
        found = [names[int(place)] for place in places.group(1).split()] if places else []
        return [name.removeprefix("module.") for name in reversed(found)]

    def release(self) -> None:
        """Leave the parameters to another replica."""
        self.reducer._remove_autograd_hooks()


_SIZES = 32
"""Graphs of one module: whole and last batches, of several workers and micro-batches, in training and validation."""


def compile_in_place(module: nn.Module, blocks: Iterable[nn.Module] = ()) -> None:
    """Compile the module's forward, those of its parts, which a task may call by themselves as a GAN's phases do, and
    those of ``blocks``. What is called by one that is compiled is compiled as a piece of it.
    """
    # For each size of batch a graph: one for all of them, which torch makes at the second size, rounds otherwise than
    # that of the first, and a training that is resumed would see the sizes in another order. Each part on its own:
    # torch counts how often code is compiled, gives up after some times, and parts may share code.
    options: Any = {"dynamic": False, "isolate_recompiles": True}
    torch._dynamo.config.recompile_limit = max(_SIZES, torch._dynamo.config.recompile_limit)
    for part in dict.fromkeys((*blocks, *module.children(), module)):
        if not type(part).forward.__module__.startswith("torch.nn."):
            part.compile(**options)
        elif type(part).forward is not nn.Module.forward:  # a list of modules is never called
            # The compiler passes over torch's own classes, and begins with the first frame of somebody else.
            own = _of_our_own(part.forward)
            part.forward = torch.compile(own, **options)


def compiled_nothing() -> bool:
    """Whether nothing was compiled in this process so far."""
    return not torch._dynamo.utils.counters["stats"]["unique_graphs"]


def _of_our_own(forward: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    return call


def behind(result: Any) -> set[Tensor] | None:
    """The parameters that tensors in ``result`` depend on, None where their graph does not say."""
    found: set[Tensor] = set()
    seen: set[Any] = set()
    open_nodes: list[Any] = [tensor.grad_fn for tensor in tree_leaves(result) if isinstance(tensor, Tensor)]
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "CheckpointFunctionBackward":  # it runs its part of the model in the backward pass
            return None
        if hasattr(node, "variable"):
            found.add(node.variable)
        open_nodes.extend(following for following, _ in node.next_functions)
    return found
