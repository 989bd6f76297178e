"""ResNet-18 on image files, plain DDP and torch's DataLoader: ``torchrun --nproc-per-node 2 images.py '{...}'``.

The network is torchvision's, written out because nothing else here needs that package.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler


@dataclass(frozen=True)
class Options:
    """``folder`` holds a folder of images a class; ``size`` is the pixels a side that they are resized to."""

    folder: str
    steps: int
    global_batch_size: int
    size: int
    loader_workers: int = 1


class Images(Dataset[tuple[Tensor, int]]):
    def __init__(self, folder: Path, size: int) -> None:
        classes = sorted(path.name for path in folder.iterdir())
        self.files = [(path, label) for label, name in enumerate(classes) for path in sorted((folder / name).iterdir())]
        self.size = size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(resized, dtype=np.float32).transpose(2, 0, 1) / 255), label


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


def resnet18(classes: int) -> nn.Sequential:
    widths = (64, 128, 256, 512)
    blocks = [
        Block(widths[max(stage - (index == 0), 0)], widths[stage], 2 if stage and index == 0 else 1)
        for stage in range(4)
        for index in range(2)
    ]
    stem = (nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def main(options: Options) -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    data = Images(Path(options.folder), options.size)
    sampler: DistributedSampler[tuple[Tensor, int]] = DistributedSampler(data)
    loader = DataLoader(
        data,
        options.global_batch_size // dist.get_world_size(),
        sampler=sampler,
        num_workers=options.loader_workers,
        persistent_workers=options.loader_workers > 0,
    )
    model = DistributedDataParallel(resnet18(len({label for _, label in data.files})))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    step = epoch = 0
    while step < options.steps:
        sampler.set_epoch(epoch)
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            step += 1
        epoch += 1
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Options(**json.loads(sys.argv[1])))
