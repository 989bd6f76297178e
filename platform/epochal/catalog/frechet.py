"""How far generated samples are from real ones, by the Gaussians that fit them."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

FEATURES = 64


class FrechetDistance(Metric):
    """The squared Frechet distance between Gaussians fitted to the values of real and of made samples.

    The distance is Dowson and Landau's (1982), of which Heusel et al. 2017 (https://arxiv.org/abs/1706.08500) made FID.
    Its features are no pretrained network's: a sample's values themselves, or ``FEATURES`` random projections of them
    where there are more, the same in every training. Lower is better; numbers of different data do not compare.
    """

    higher_is_better = False
    full_state_update = False
    count: Tensor
    real_sum: Tensor
    real_products: Tensor
    made_sum: Tensor
    made_products: Tensor

    def __init__(self, values: int) -> None:
        super().__init__()
        size = min(values, FEATURES)
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        for kind in ("real", "made"):
            self.add_state(f"{kind}_sum", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{kind}_products", torch.zeros(size, size, dtype=torch.float64), dist_reduce_fx="sum")
        projection = torch.randn(values, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self._projection = torch.linalg.qr(projection).Q if values > size else None

    def update(self, real: Tensor, made: Tensor) -> None:
        """real, made: (batch, ...), as many of both."""
        self.count += len(real)
        for kind, samples in (("real", real), ("made", made)):
            features = samples.flatten(1).double()
            if self._projection is not None:
                features = features @ self._projection.to(features.device)
            getattr(self, f"{kind}_sum").add_(features.sum(0))
            getattr(self, f"{kind}_products").add_(features.T @ features)

    def compute(self) -> Tensor:
        """NaN of fewer than two samples."""
        means = [one / self.count for one in (self.real_sum, self.made_sum)]
        covariances = [
            (products - self.count * torch.outer(mean, mean)) / (self.count - 1)
            for products, mean in zip((self.real_products, self.made_products), means, strict=True)
        ]
        # tr(sqrt(A B)) is the sum of the roots of the product's eigenvalues, which are real and not negative.
        shared = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
        return (means[0] - means[1]).square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * shared
