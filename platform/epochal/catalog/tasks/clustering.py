"""Clustering without labels (Xie et al. 2016, https://arxiv.org/abs/1511.06335): an autoencoder is trained, k-means
places centres among its latent numbers, and encoder and centres then sharpen what they are sure of.

Classes are what the clusters are compared with at validation, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.architectures.dec import Dec
from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.drawing import embedding
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.task import EverySample, Loss, NamedMetrics, Samples
from epochal.errors import EpochalError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torchmetrics import Metric, MetricCollection

Name = Literal["accuracy", "nmi"]


class ClusteringParams(Params):
    pretrain_steps: Annotated[int, Field(ge=0)] = 1000
    """Optimizer steps in which the autoencoder alone is trained. Then k-means places the centres."""
    target_every: Annotated[int, Field(ge=1)] = 100
    """Optimizer steps after which the targets are taken anew, from all training samples."""
    reconstruction: Annotated[float, Field(ge=0)] = 0.0
    """Weight, beside the clusters, of the error of what is made again: the paper's is 0, Guo et al. 2017 keep some."""
    metrics: Annotated[list[Name], Field(min_length=1)] = ["accuracy", "nmi"]
    """Agreement with the classes: accuracy, with both paired so that it is highest, and mutual information."""


class Clustering(NamedMetrics):
    """The loss is the divergence of a sample's shares in the clusters from its targets, which stay as they were when
    they were last taken."""

    known_metrics = get_args(Name)

    def __init__(self, params: ClusteringParams, info: DataInfo) -> None:
        self._params = params
        self._info = info
        self.metric_names = tuple(params.metrics)

    def takes_stock(self, step: int) -> bool:
        return step >= self._params.pretrain_steps and (
            (step - self._params.pretrain_steps) % self._params.target_every == 0
        )

    def take_stock(self, model: nn.Module, step: int, every_sample: EverySample) -> None:
        dec = _dec(model)
        if step == self._params.pretrain_steps:
            latent = every_sample(lambda batch: dec.encoder(batch["input"].flatten(1)))
            dec.centres.copy_(k_means(latent, len(dec.centres), torch.Generator().manual_seed(0)))
            dec.clustered.fill_(1)
        dec.follow()
        dec.sizes.copy_(every_sample(lambda batch: dec.followed_shares(batch["input"])).sum(dim=0))

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        x, dec = batch["input"], _dec(model)
        said = dec(x)
        with torch.no_grad():
            targets = dec.targets(x)
        divergence = F.kl_div(said.shares.log(), targets, reduction="sum")
        error = F.mse_loss(said.made, x, reduction="sum") / (x[:1].numel() or 1)
        # A choice without a branch: DDP waits for the same gradients in every step.
        weight = 1 + dec.clustered * (self._params.reconstruction - 1)
        logs = {"divergence": divergence, "reconstruction": error}
        return Loss((dec.clustered * divergence + weight * error).sum(), None, said, logs)

    def metrics(self) -> MetricCollection:
        from epochal.catalog.cluster_metrics import ClusterAccuracy, NormalizedMutualInformation

        classes = self._info.target.width
        known: dict[str, Callable[[], Metric]] = {
            "accuracy": lambda: ClusterAccuracy(classes),
            "nmi": lambda: NormalizedMutualInformation(classes),
        }
        return self.named(known)

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        metrics.update(outputs.shares.argmax(dim=1), batch["target"])

    def pictures(self, samples: Samples) -> Mapping[str, Image | str]:
        """Latent numbers in the colours of the classes, and in those of the clusters."""
        if samples.model is None:
            return {}
        dec = _dec(samples.model)
        latent = dec.encoder(samples.batch["input"].flatten(1).to(dec.centres.device)).cpu()
        clusters = samples.outputs.shares.argmax(dim=1)
        return {
            "embedding": embedding(latent, samples.batch["target"], "latent numbers; colours: classes"),
            "clusters": embedding(latent, clusters, "latent numbers; colours: clusters"),
        }


def _dec(model: nn.Module) -> Dec:
    if not isinstance(model, Dec):
        raise EpochalError(f"clustering needs the architecture dec, not {type(model).__name__}")
    return model


def k_means(points: Tensor, clusters: int, generator: torch.Generator, starts: int = 20) -> Tensor:
    """The best of some starts of Lloyd's algorithm (1982) from centres that lie apart (k-means++, Arthur and
    Vassilvitskii 2007). points: (points, values); returns the centres (clusters, values).
    """
    found: list[tuple[float, Tensor]] = []
    for _ in range(starts):
        centres = points[torch.randint(len(points), (1,), generator=generator)]
        while len(centres) < clusters:
            # Above zero: of points that are all alike none would have a chance, which is refused.
            far = torch.cdist(points, centres).amin(dim=1).square().double().cpu() + 1e-12
            centres = torch.cat([centres, points[torch.multinomial(far, 1, generator=generator)]])
        nearest = torch.cdist(points, centres).argmin(dim=1)
        for _ in range(100):
            sums = torch.zeros_like(centres).index_add_(0, nearest, points)
            counts = torch.bincount(nearest, minlength=clusters)[:, None]
            centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
            before, nearest = nearest, torch.cdist(points, centres).argmin(dim=1)
            if torch.equal(before, nearest):
                break
        found.append((float((points - centres[nearest]).square().sum()), centres))
    return min(found, key=lambda one: one[0])[1]


def build(params: ClusteringParams, info: DataInfo) -> Clustering:
    if (
        info.target.classes is None
        or info.target.shape != ()
        or not info.input.dtype.is_floating_point
        or info.inputs != ("input",)
    ):
        raise EpochalError("clustering needs real values as input, and a class a sample to compare the clusters with")
    return Clustering(params, info)


ENTRY = TaskEntry(
    summary="Clusters without labels, compared with classes; metrics accuracy (Hungarian matching) and nmi",
    source="Xie et al. 2016, https://arxiv.org/abs/1511.06335; Guo et al. 2017, Improved deep embedded clustering",
    params=ClusteringParams,
    build=build,
)
