"""Which worker this process is."""

from __future__ import annotations

from dataclasses import dataclass

import torch

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Worker:
    """One of ``world_size`` workers that train a model together.

    ``local_rank`` counts the workers on the same node; ``device`` is where this one computes.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: torch.device = CPU

    @property
    def is_first(self) -> bool:
        """The first worker writes what one of them has to write: metrics, manifests, the final weights."""
        return self.rank == 0
