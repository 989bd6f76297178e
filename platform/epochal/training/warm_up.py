"""Pay in advance what the first training in a process would wait for."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import nn

LATE = (
    "torchmetrics.classification",
    "torch.distributed.checkpoint.state_dict",
    "torch.nn.parallel.distributed",
    "epochal.training.fit",
)
"""Modules that a training imports while it runs: seconds, most of them for the first validation."""


def warm_up() -> None:
    """Import what a training on CPU needs and take one optimizer step, which makes torch load its compiler's front end.

    For idle workers. It leaves no process group, no thread and no change of the random generators' seeds behind, and
    touches no GPU.
    """
    for module in LATE:
        import_module(module)
    with torch.random.fork_rng(devices=[]):
        model = nn.Linear(1, 1)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.zeros(1, 1)).sum().backward()
        optimizer.step()
