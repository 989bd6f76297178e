"""The tensors of a model and its optimizer, to and from a folder.

Written by torch.distributed.checkpoint, each worker its part, and read by any number of workers in any strategy. Only
tensors are written, and nothing read is trusted to be more: torch would unpickle the index of a checkpoint and every
value that is not a tensor, which runs whatever code a file names.
"""

from __future__ import annotations

import io
import math
import pickle
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem, SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_state_dict
from torch.distributed.checkpoint.state_dict_saver import save as save_state_dict
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.tensor import DTensor
from torch.futures import Future
from torch.optim import Optimizer

from epochal.errors import CheckpointError, some
from epochal.redaction import said
from epochal.training.worker import Worker

Tensors = dict[str, Tensor]

MODEL = "model."
OPTIMIZER = "optimizer."
AVERAGE = "average/"
_STATE = "state."

_INDEX_NAMES = {
    "torch": {"Size", *(name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype))},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.metadata": {
        "Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata", "MetadataIndex",
        "StorageMeta", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "pathlib": {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
}  # fmt: skip
"""What the index of a checkpoint of tensors is made of; none of these does anything but hold values."""


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):  # how Python up to 3.11.3 (Debian 12's) pickles an enum's member
            return _memory_format
        if name not in _INDEX_NAMES.get(module, ()):
            raise CheckpointError(f"the checkpoint's index names {module}.{name}, which is not part of one")
        return super().find_class(module, name)


def _memory_format(kind: Any, name: str) -> Any:
    """``getattr``, of the one enum that an index holds."""
    if kind is not _MEM_FORMAT_ENCODING:
        raise CheckpointError(f"the checkpoint's index reads {name!r} of {kind!r}, which is not part of one")
    return _MEM_FORMAT_ENCODING[name]


class _Reader(FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        try:
            metadata: Metadata = _IndexUnpickler(io.BytesIO((Path(self.path) / ".metadata").read_bytes())).load()
        except (OSError, pickle.UnpicklingError, EOFError) as error:
            raise CheckpointError(f"the index of {self.path} cannot be read: {said(error)}") from error
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _TensorsOnly(DefaultLoadPlanner):
    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        raise CheckpointError(f"the checkpoint holds something other than a tensor: {read_item.dest_index.fqn}")


class _Writer(FileSystemWriter):
    """Tells of a full disk as such.

    Torch makes "unexpected pos" of it, and what Python had said is lost on the error's way to the other workers.
    """

    def __init__(self, folder: Path, written: Callable[[], None]) -> None:
        super().__init__(folder)
        self._written = written

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        try:
            results = super().write_data(plan, planner)
            self._written()
            return results
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def save(
    tensors: Tensors, folder: Path, group: dist.ProcessGroup | None, written: Callable[[], None] = lambda: None
) -> None:
    """Write this worker's part; all workers of ``group`` together, None for a lone one.

    ``written`` is called once this worker's own part is there, before it waits for the others.

    Raises:
        OSError: some worker could not, the disk being full for instance; the same on all of them.
    """
    _expect_no_group()
    try:
        save_state_dict(tensors, storage_writer=_Writer(folder, written), process_group=group, no_dist=group is None)
    except CheckpointException as error:
        first, _ = next(iter(error.failures.values()))
        raise first from error


def load(tensors: Tensors, folder: Path) -> None:
    """Fill ``tensors`` in place with what ``folder`` holds under their names.

    Raises:
        CheckpointError: it holds no such tensors, or some of another shape; the first few are named.
    """
    shapes = stored(folder)
    wrong = [name for name, tensor in tensors.items() if shapes.get(name, (None,))[0] != tensor.shape]
    if wrong:
        raise CheckpointError(
            f"{folder} does not fit: {some([_compared(name, tensors, shapes) for name in wrong])}",
            "resume with the model and the optimizer that the checkpoint was written with",
        )
    _expect_no_group()
    load_state_dict(tensors, storage_reader=_Reader(folder), planner=_TensorsOnly(), no_dist=True)


def stored(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of every tensor in ``folder``, by name."""
    index = _Reader(folder).read_metadata().state_dict_metadata
    return {
        name: (item.size, item.properties.dtype)
        for name, item in index.items()
        if isinstance(item, TensorStorageMetadata)
    }


def _expect_no_group() -> None:
    """torch warns of what is meant. For good, because ``catch_warnings`` is not for threads."""
    warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


def _compared(name: str, tensors: Tensors, shapes: Mapping[str, tuple[torch.Size, torch.dtype]]) -> str:
    wanted = tuple(tensors[name].shape)
    return f"{name} is {tuple(shapes[name][0])}, not {wanted}" if name in shapes else f"{name} {wanted} is missing"


def capture(
    module: nn.Module, optimizer: Optimizer, worker: Worker, before: Tensors, more: Mapping[str, Tensor] | None = None
) -> tuple[Tensors, dict[str, Any]]:
    """A copy on CPU of this worker's part of the state: tensors by name, and what in the optimizer's state is none.
    ``more`` are tensors of neither.

    That is its shard of each tensor that is sharded, and a share of the tensors that every worker has whole. The copy
    that was taken ``before`` is overwritten, since fresh memory costs more time than the copying. Hyperparameters are
    not state: they come from the job spec.
    """
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    state = {
        **{MODEL + name: value for name, value in get_model_state_dict(module, options=options).items()},
        **_optimizer_state(get_optimizer_state_dict(module, optimizer, options=options)),
        **(more or {}),
    }
    tensors = {name: value.detach() for name, value in state.items() if isinstance(value, Tensor)}
    mine = _share({name: value.nbytes for name, value in tensors.items() if not isinstance(value, DTensor)}, worker)
    copies = {
        name: _copy(value, before.get(name))
        for name, value in tensors.items()
        if name in mine or isinstance(value, DTensor)
    }
    return copies, {name: value for name, value in state.items() if not isinstance(value, Tensor)}


def _copy(value: Tensor, before: Tensor | None) -> Tensor:
    """Of any tensor, wherever it is: on a GPU, too, some of an optimizer's state (``step``) is on the CPU."""
    if before is None or before.shape != value.shape or before.dtype != value.dtype:
        return value.to("cpu", copy=True)
    local(before).copy_(local(value))
    return before


def local(value: Tensor) -> Tensor:
    """This worker's, of a tensor that is sharded."""
    return value.to_local() if isinstance(value, DTensor) else value


def _share(sizes: Mapping[str, int], worker: Worker) -> set[str]:
    """The names that fall to ``worker`` where all divide the same ``sizes``, in bytes, as evenly as they go."""
    shares: list[set[str]] = [set() for _ in range(worker.world_size)]
    loads = [0] * worker.world_size
    # The largest first, each to whoever has the least: the same everywhere, without a message.
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        least = loads.index(min(loads))
        shares[least].add(name)
        loads[least] += sizes[name]
    return shares[worker.rank]


def trained(module: nn.Module) -> frozenset[str]:
    """The names, as ``capture`` has them, of the parameters that steps change."""
    named = module.named_parameters(remove_duplicate=False)
    return frozenset(MODEL + name for name, parameter in named if parameter.requires_grad)


def first_not_finite(captured: Tensors, trained: Collection[str]) -> str:
    """The first of a worker's tensors with NaN or infinity in it; empty where there is none.

    Of the model that is a parameter which is ``trained``: a buffer or a frozen parameter may hold infinity on purpose,
    a mask for instance, and no step has changed it.
    """
    for name, value in captured.items():
        if name in trained or name.startswith(OPTIMIZER):
            mine = local(value)
            if mine.numel() and mine.is_floating_point():
                low, high = mine.aminmax()  # NaN wherever there is one
                if not (math.isfinite(low) and math.isfinite(high)):
                    return name
    return ""


def restore(
    module: nn.Module,
    optimizer: Optimizer,
    folder: Path,
    plain: Mapping[str, Any],
    more: Mapping[str, Tensor] | None = None,
) -> bool:
    """Put the state that ``capture`` and ``save`` kept into the model, the optimizer, and the tensors of ``more``.

    A parameter that had no optimizer state, because no step had given it a gradient, has none afterwards. False where
    no parameter had any, as with an optimizer that keeps none (``sgd`` without momentum): this one begins anew.

    Raises:
        CheckpointError: it is that of another model or optimizer.
    """
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    model_state = get_model_state_dict(module, options=options)
    optimizer_state = get_optimizer_state_dict(module, optimizer, options=options)
    ours = _optimizer_state(optimizer_state)
    # Torch has made up a state for every parameter, by a step without gradients: room for what is loaded.
    parameters = dict(module.named_parameters())
    owners = {name: _owner(name, parameters) for name in ours}
    there = {*stored(folder), *plain}
    idle, kept = set(owners.values()) - {_owner(name, parameters) for name in there}, True
    if idle == set(owners.values()):
        kept = not idle or any(name.startswith(OPTIMIZER) for name in there)
        idle = set() if kept else idle  # another optimizer wrote it, and ``load`` tells what is missing
    wanted = [name for name in ours if owners[name] not in idle]
    both = {**{MODEL + name: value for name, value in model_state.items()}, **{name: ours[name] for name in wanted}}
    load({name: value for name, value in {**both, **(more or {})}.items() if isinstance(value, Tensor)}, folder)
    for name in wanted:
        if name in plain:
            optimizer_state[name.removeprefix(OPTIMIZER)] = plain[name]
    set_model_state_dict(module, model_state, options=options)
    set_optimizer_state_dict(module, optimizer, optimizer_state, options=options)
    for name in idle:
        optimizer.state.pop(parameters[name], None)
    return kept


def _owner(name: str, parameters: Collection[str]) -> str:
    """The parameter that a value of the optimizer's state belongs to; empty where it is none of those."""
    owner = name.removeprefix(OPTIMIZER + _STATE)
    while owner and owner not in parameters:
        owner = owner.rpartition(".")[0]
    return owner


def _optimizer_state(flat: Mapping[str, Any]) -> dict[str, Any]:
    return {OPTIMIZER + name: value for name, value in flat.items() if name.startswith(_STATE)}
