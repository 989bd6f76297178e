"""Plain DDP: ``torchrun --nproc-per-node 2 torchrun_train.py '{"steps": 30}'``."""

from __future__ import annotations

import json
import sys

import torch
import torch.distributed as dist
import torch.nn.functional as F
from digits import Options, batches, load, network, restore, save
from torch.nn.parallel import DistributedDataParallel


def main(options: Options) -> None:
    dist.init_process_group("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model = DistributedDataParallel(network(options))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    stream = batches(load(options), options, rank, world_size)
    first = restore(options.checkpoints, model.module, optimizer) if options.checkpoints else 0
    for _ in range(first):
        next(stream)
    for step in range(first + 1, options.steps + 1):
        images, labels = next(stream)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if options.checkpoints and rank == 0 and step % options.checkpoint_every == 0:
            save(options.checkpoints, step, model.module, optimizer)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Options(**json.loads(sys.argv[1])))
