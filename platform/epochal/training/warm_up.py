"""Pay in advance what the first training in a process would wait for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.nn import functional

LATE = (
    "torchmetrics.classification",
    "torch.distributed.checkpoint.state_dict",
    "torch.nn.parallel.distributed",
    "epochal.training.fit",
)
"""Modules that a training imports while it runs: seconds, most of them for the first validation."""


def warm_up() -> None:
    """Import what a training on CPU needs and take one optimizer step, which makes torch load its compiler's front end.

    For idle workers. It leaves no process group and no thread behind, touches no GPU, and draws no random numbers: the
    generators are the process's, and a training may have seeded them meanwhile.
    """
    for module in LATE:
        import_module(module)
    weight = nn.Parameter(torch.zeros(1, 1))
    optimizer = torch.optim.AdamW([weight])
    loss: Any = functional.linear(torch.zeros(1, 1), weight).sum()
    loss.backward()
    optimizer.step()
