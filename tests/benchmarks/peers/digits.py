"""The quickstart's model on its data in plain torch, as a user would write it: shared by the peers' scripts.

``python digits.py FILE`` writes the prepared tensors that ``Options.arrays`` reads.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


@dataclass(frozen=True)
class Options:
    """``loader``: ``tensors`` slices batches out of memory, ``dataloader`` is torch's own at its defaults.

    ``hidden`` are the widths of a perceptron in place of the quickstart's network.
    ``arrays`` is a file of prepared tensors to read in place of scikit-learn, whose import takes a second.
    """

    steps: int = 30
    global_batch_size: int = 64
    loader: str = "tensors"
    arrays: str | None = None
    checkpoints: str | None = None
    checkpoint_every: int = 20
    hidden: tuple[int, ...] = ()


class Classifier(nn.Sequential):
    """The quickstart's ``cnn`` for digits, layer by layer."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(1, 32, 3, padding="same"), nn.GELU(), nn.AvgPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding="same"), nn.GELU(), nn.AvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(256, 128), nn.GELU(), nn.Linear(128, 10)),
        )


class Perceptron(nn.Sequential):
    """Fully connected, as the catalog's ``mlp`` is, for something to save."""

    def __init__(self, hidden: Sequence[int]) -> None:
        widths = [64, *hidden]
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
        super().__init__(nn.Flatten(), *layers, nn.Linear(widths[-1], 10))


def network(options: Options) -> nn.Module:
    return Perceptron(options.hidden) if options.hidden else Classifier()


def load(options: Options) -> TensorDataset:
    """The first four fifths of the images: (samples, 1, 8, 8) in 0..1, and their classes."""
    if options.arrays:
        return TensorDataset(*torch.load(options.arrays, weights_only=True))
    from sklearn.datasets import load_digits

    digits = load_digits()
    count = len(digits.target) * 4 // 5
    images = torch.from_numpy(digits.images[:count]).float().unsqueeze(1) / 16
    return TensorDataset(images, torch.from_numpy(digits.target[:count]).long())


def batches(data: TensorDataset, options: Options, rank: int, world_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """This rank's share of every global batch, epoch after epoch, for ever."""
    return (_loaded if options.loader == "dataloader" else _sliced)(data, options, rank, world_size)


def _sliced(data: TensorDataset, options: Options, rank: int, world_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    images, labels = data.tensors
    epoch = 0
    while True:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(options.global_batch_size):
            mine = batch.tensor_split(world_size)[rank]
            yield images.index_select(0, mine), labels.index_select(0, mine)
        epoch += 1


def _loaded(data: TensorDataset, options: Options, rank: int, world_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    sampler: DistributedSampler[tuple[Tensor, ...]] = DistributedSampler(data, world_size, rank)
    loader = DataLoader(data, options.global_batch_size // world_size, sampler=sampler)
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def save(folder: str, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Written beside its place, then renamed: a killed writer leaves no half of one."""
    path = Path(folder) / f"{step:08d}.pt"
    torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, f"{path}.new")
    os.replace(f"{path}.new", path)


def restore(folder: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest checkpoint, if there is one; the step to go on from."""
    found = sorted(Path(folder).glob("*.pt"))
    if not found:
        return 0
    state = torch.load(found[-1], weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


if __name__ == "__main__":
    torch.save(load(Options()).tensors, sys.argv[1])
