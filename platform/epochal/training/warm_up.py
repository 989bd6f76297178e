"""Pay in advance what the first training in a process would wait for."""

from __future__ import annotations

from importlib import import_module

from epochal.catalog.lean_torchmetrics import lean_torchmetrics

LATE = (
    "torch.distributed.checkpoint.state_dict",
    "torch.nn.parallel.distributed",
    "torch._dynamo",
    "torch.profiler._cupti_monitor",
    "epochal.training.fit",
)
"""Modules that a training imports while it runs: seconds, for the first step and for the first validation."""


def warm_up() -> None:
    """Import what a training needs. For idle workers.

    It takes no step: one would save 10 ms, but a backward pass asks CUDA for its devices, also on a CPU, and CUDA then
    looks at ``CUDA_VISIBLE_DEVICES`` no more. Every worker that is given a GPU later would compute on the first one.
    """
    for module in LATE:
        import_module(module)
    with lean_torchmetrics():
        import torchmetrics.classification  # noqa: F401
