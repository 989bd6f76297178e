"""How clusters agree with classes. Importing this imports torchmetrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class Contingency(Metric):
    """Counts the samples of each cluster and class, which both measures follow from."""

    counts: Tensor
    higher_is_better = True
    full_state_update = False

    def __init__(self, classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.classes = classes
        self.add_state("counts", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, clusters: Tensor, target: Tensor) -> None:
        """clusters, target: (batch,), whole numbers below ``classes``."""
        pairs = torch.bincount(clusters * self.classes + target, minlength=self.classes**2)
        self.counts += pairs.reshape(self.classes, self.classes)


class ClusterAccuracy(Contingency):
    """Share of samples whose cluster is that of their class, with clusters and classes paired as it is highest (the
    Hungarian method, Kuhn 1955).
    """

    def compute(self) -> Tensor:
        from scipy.optimize import linear_sum_assignment

        counts = self.counts.cpu()
        rows, columns = linear_sum_assignment(counts.numpy(), maximize=True)
        return counts[rows, columns].sum() / counts.sum().clamp_min(1)


class NormalizedMutualInformation(Contingency):
    """Mutual information of cluster and class over the mean of their entropies, from 0 to 1; 1 where there is one of
    each.
    """

    def compute(self) -> Tensor:
        joint = self.counts.double() / self.counts.sum().clamp_min(1)
        cluster, label = joint.sum(dim=1), joint.sum(dim=0)
        mean = (_entropy(cluster) + _entropy(label)) / 2
        shared = _entropy(cluster) + _entropy(label) - _entropy(joint)
        return torch.where(mean > 0, shared / mean.clamp_min(1e-12), 1.0)


def _entropy(probabilities: Tensor) -> Tensor:
    entropy: Tensor = -torch.special.xlogy(probabilities, probabilities).sum()
    return entropy
