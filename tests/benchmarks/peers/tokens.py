"""A GPT of 10.7 million parameters on a file of tokens, plain DDP and torch's DataLoader: ``torchrun ... '{...}'``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler


@dataclass(frozen=True)
class Options:
    """``path`` is a file of uint16 tokens below ``vocabulary``."""

    path: str
    steps: int
    global_batch_size: int
    length: int
    vocabulary: int
    width: int
    layers: int
    heads: int
    loader_workers: int = 1


class Tokens(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, path: str, length: int) -> None:
        self.tokens = np.memmap(path, dtype=np.uint16, mode="r")
        self.length = length

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        first = index * self.length
        row = torch.from_numpy(self.tokens[first : first + self.length + 1].astype(np.int64))
        return row[:-1], row[1:]


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.ln_1(x)).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, options: Options) -> None:
        super().__init__()
        self.wte = nn.Embedding(options.vocabulary, options.width)
        self.wpe = nn.Embedding(options.length, options.width)
        self.blocks = nn.Sequential(*(Block(options.width, options.heads) for _ in range(options.layers)))
        self.norm = nn.LayerNorm(options.width)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.norm(self.blocks(self.wte(x) + self.wpe.weight)), self.wte.weight)


def main(options: Options) -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    data = Tokens(options.path, options.length)
    sampler: DistributedSampler[tuple[Tensor, Tensor]] = DistributedSampler(data)
    loader = DataLoader(
        data,
        options.global_batch_size // dist.get_world_size(),
        sampler=sampler,
        num_workers=options.loader_workers,
        persistent_workers=options.loader_workers > 0,
    )
    model = DistributedDataParallel(Gpt(options))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    step = epoch = 0
    while step < options.steps:
        sampler.set_epoch(epoch)
        for inputs, targets in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
            optimizer.step()
            step += 1
        epoch += 1
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Options(**json.loads(sys.argv[1])))
