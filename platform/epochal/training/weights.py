"""Weights without the rest: to start from, to freeze, to hand on."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from epochal.errors import CheckpointError, TrainingError, did_you_mean, some
from epochal.files import sync
from epochal.redaction import said
from epochal.training import checkpoint

FILE = Path("model") / "weights.safetensors"
LAST = Path("model") / "last.safetensors"
"""Where ``FILE`` has others: of a training with ``train.average``, or ``train.export: best``."""
BEST = Path("model") / "best.safetensors"
"""Those of the objective's best step, where ``FILE`` has others."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Matched:
    """What became of weights to start from: names by what happened to them."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    """In the model only: they keep their initial values."""
    unexpected: tuple[str, ...]
    """In the file only."""
    reshaped: tuple[str, ...]
    """In both, but of different shapes, as a head for other classes: they keep their initial values."""
    shapes: Mapping[str, str] = field(default_factory=dict)
    """Of those the two shapes, in words."""
    excepted: tuple[str, ...] = ()
    """Of the model, not to be taken from the file."""

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        labels = {
            "not in the file": self.missing,
            "not in the model": self.unexpected,
            "of another shape": self.reshaped,
            "left as drawn by train.init_except": self.excepted,
        }
        for label, names in labels.items():
            if names:
                parts.append(f"{len(names)} {label}: {some([name + self.shapes.get(name, '') for name in names], 5)}")
        return "; ".join(parts)


def start_from(model: nn.Module, path: Path, excepted: Sequence[str] = ()) -> Matched:
    """Copy the weights at ``path`` whose names and shapes are the model's, and log which those are not.

    Those of the model that match one of the shell patterns ``excepted`` stay as they are.

    Raises:
        CheckpointError: nothing readable is there, or no weight fits.
        TrainingError: a pattern matches nothing.
    """
    given, every = read(path), model.state_dict()
    for pattern in excepted:
        if not matching(every, [pattern]):
            raise TrainingError(f"init_except: no weight matches {pattern!r}", did_you_mean(pattern, tuple(every)))
    kept = matching(every, excepted)
    own = {name: one for name, one in every.items() if name not in kept}
    shared = own.keys() & given.keys()
    fitting = {name: given[name] for name in own if name in shared and given[name].shape == own[name].shape}
    if not fitting:
        raise CheckpointError(f"no weight in {path} fits the model: it has {some(list(given))}")
    model.load_state_dict(fitting, strict=False)
    matched = Matched(
        loaded=tuple(fitting),
        missing=tuple(name for name in own if name not in given),
        unexpected=tuple(name for name in given if name not in every),
        reshaped=tuple(name for name in own if name in shared and name not in fitting),
        shapes={
            name: f" ({_size(given[name])} in the file, {_size(own[name])} in the model)"
            for name in shared
            if name not in fitting
        },
        excepted=kept,
    )
    _log.log(logging.INFO if matched.complete else logging.WARNING, "weights from %s: %s", path, matched)
    return matched


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a scalar"


def read(path: Path) -> dict[str, Tensor]:
    """The weights in a ``.safetensors`` file, a checkpoint folder, or the folder of a job.

    Raises:
        CheckpointError: there are none, or they are damaged.
    """
    if path.is_dir() and not (path / checkpoint.MANIFEST).exists():
        path = _of_job(path)
    if path.is_dir():
        return _of_checkpoint(path)
    try:
        return load_file(path)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {said(error)}") from error


def _of_job(folder: Path) -> Path:
    if (folder / FILE).exists():
        return folder / FILE
    complete = checkpoint.steps(folder / checkpoint.FOLDER)
    if not complete:
        raise CheckpointError(f"{folder} holds neither {FILE} nor a complete checkpoint")
    return folder / checkpoint.FOLDER / checkpoint.name_of(complete[0])


def _of_checkpoint(path: Path) -> dict[str, Tensor]:
    from epochal.training import tensors  # half a second, which `plan` does without

    manifest = checkpoint.read(path)
    checkpoint.verify(path, manifest, manifest.files)
    kinds = (tensors.MODEL, tensors.AVERAGE)  # the means, where there are some, stand for the last weights
    shapes = {name: shape for name, shape in tensors.stored(path).items() if name.startswith(kinds)}
    weights = {name: torch.empty(size, dtype=dtype) for name, (size, dtype) in shapes.items()}
    tensors.load(weights, path)
    last, means = (
        {name.removeprefix(kind): one for name, one in weights.items() if name.startswith(kind)} for kind in kinds
    )
    # A tied weight has one mean, and several names: those whose last values are the same.
    tied = {one: mean for mean in means for one in last.keys() - means if torch.equal(last[one], last[mean])}
    return {name: means.get(tied.get(name, name), one) for name, one in last.items()}


def put(module: nn.Module, path: Path) -> None:
    """Give a model, wrapped as it may be, the weights of a checkpoint; the means of them, where it has some. Every
    worker calls it.

    Raises:
        CheckpointError: it is that of another model.
    """
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

    from epochal.training import tensors

    state: dict[str, Any] = {name: one for name, one in get_model_state_dict(module).items() if isinstance(one, Tensor)}
    there = tensors.stored(path)
    means = {name for name in state if tensors.AVERAGE + name in there}
    # A tied weight has one mean, and several names.
    tied = {tensors.local(state[name]).data_ptr(): name for name in means if tensors.local(state[name]).numel()}
    owners = {name: tied.get(tensors.local(one).data_ptr(), name) for name, one in state.items()}
    kinds = {name: tensors.AVERAGE if owner in means else tensors.MODEL for name, owner in owners.items()}
    tensors.load({kinds[name] + owners[name]: one for name, one in state.items()}, path)
    set_model_state_dict(module, state)


def freeze(model: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Exclude the parameters whose names match a shell pattern from training; their names.

    Raises:
        TrainingError: a pattern matches nothing, or nothing is left to train.
    """
    parameters = dict(model.named_parameters())
    for pattern in patterns:
        if not matching(parameters, [pattern]):
            raise TrainingError(f"freeze: no parameter matches {pattern!r}", did_you_mean(pattern, tuple(parameters)))
    frozen = matching(parameters, patterns)
    for name in frozen:
        parameters[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise TrainingError("freeze leaves no parameter to train" if frozen else "the model has no parameter to train")
    return frozen


def matching(names: Iterable[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """Those of ``names`` that match one of the shell ``patterns``."""
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))


def clean(job: Path) -> None:
    """Remove the files that attempts left which died in ``export``: each as large as the model. The first worker of the
    next attempt does, before it trains; one that is not quite dead has no lease any more, and fails in its last write.
    """
    for path in (job / FILE).parent.glob("*.safetensors.tmp-*"):
        path.unlink(missing_ok=True)


def export(module: nn.Module, file: Path, first: bool) -> Path:
    """Write the weights, gathered and on CPU, as safetensors.

    Every worker calls it; the ``first`` one writes.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(module, options=options)
    if first:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.tmp-{secrets.token_hex(4)}")
        # Clones, because safetensors refuses tensors that share memory (tied weights).
        whole = {
            name: value.detach().clone().contiguous() for name, value in state.items() if isinstance(value, Tensor)
        }
        try:
            save_file(whole, temporary)
            sync(temporary)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)  # on a full disk the ledger needs the room
        sync(file.parent, parents=2)
    return file
