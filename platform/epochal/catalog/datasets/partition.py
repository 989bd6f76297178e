"""How samples become a training and a validation part, the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def partition(count: int, fraction: float, seed: int, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sorted indices of the training and of the validation samples.

    ``fraction`` of them is for validation; of each class where ``classes`` (count,) says each sample's, rounded so
    that a class of one sample stays in training.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    groups: Sequence[Tensor] = [order]
    if classes is not None:
        # Sorted once: to look for each among all samples takes minutes where they are thousands of users.
        _, counts = torch.unique(classes, return_counts=True)
        groups = torch.split(order[classes[order].argsort(stable=True)], counts.tolist())
    held_out = [group[: min(round(len(group) * fraction), len(group) - 1)] for group in groups if len(group)]
    validation = torch.cat(held_out).sort().values if held_out else order[:0]
    training = torch.ones(count, dtype=torch.bool)
    training[validation] = False
    return training.nonzero().flatten(), validation
