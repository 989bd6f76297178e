"""Clustering without labels: a model of the kind of ``architectures.dec`` is started, then sharpens what it is sure of.

Classes are what the clusters are compared with at validation, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.architectures.dec import Clustered, Dec
from epochal.catalog.data import Batch, DataInfo, Split
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.lean_torchmetrics import lean_torchmetrics
from epochal.catalog.task import Loss
from epochal.errors import EpochalError

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

Name = Literal["accuracy", "nmi"]
_BATCH = 128


class ClusteringParams(Params):
    start_epochs: Annotated[int, Field(ge=0)] = 40
    """Passes over the training samples in which the autoencoder alone is trained, before the first step; then k-means
    places the centres. Each worker does the same."""
    start_lr: Annotated[float, Field(gt=0)] = 2e-3
    """Learning rate of these passes, by Adam."""
    reconstruction: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the error of what is made again beside that of the clusters; the paper's is 0, Guo et al. keep it."""
    metrics: Annotated[list[Name], Field(min_length=1)] = ["accuracy", "nmi"]
    """Agreement with the classes: accuracy, with both paired so that it is highest, and mutual information."""


class Clustering:
    """The loss is the divergence of a sample's shares from sharpened ones: squared, over the size of the cluster.

    The paper takes the clusters' sizes anew now and then; here they stay those of the start, so that the loss of a
    sample does not depend on others.
    """

    known_metrics = get_args(Name)

    def __init__(self, params: ClusteringParams, info: DataInfo) -> None:
        self._params = params
        self._info = info
        self.metric_names = tuple(params.metrics)

    def start(self, model: nn.Module, train: Split) -> None:
        """Train the autoencoder and place the centres, from the training samples and torch's generator alone."""
        model = _dec(model)
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        optimizer = torch.optim.Adam([*model.encoder.parameters(), *model.decoder.parameters()], self._params.start_lr)
        for _ in range(self._params.start_epochs):
            for indices in torch.randperm(len(train), generator=generator).split(_BATCH):
                x = train.fetch(indices.tolist())["input"]
                optimizer.zero_grad()
                F.mse_loss(model(x).made, x).backward()
                optimizer.step()
        with torch.no_grad():
            parts = torch.arange(len(train)).split(_BATCH)
            inputs = (train.fetch(indices.tolist())["input"] for indices in parts)
            latent = torch.cat([model.encoder(x.flatten(1)) for x in inputs])
            centres, clusters = k_means(latent, len(model.centres), generator)
            model.centres.copy_(centres)
            model.sizes.copy_(torch.bincount(clusters, minlength=len(centres)).clamp_min(1) / len(clusters))
        optimizer.zero_grad()

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        x = batch["input"]
        said = self._info.call(model, batch)
        if not isinstance(said, Clustered):
            raise EpochalError(f"clustering needs a model that gives Clustered, not {type(said).__name__}", "use dec")
        sharp = said.shares.detach().square() / _dec(model).sizes
        sharp = sharp / sharp.sum(dim=1, keepdim=True)
        divergence = F.kl_div(said.shares.clamp_min(1e-12).log(), sharp, reduction="sum")
        error = F.mse_loss(said.made, x, reduction="sum") / (x[:1].numel() or 1)
        logs = {"divergence": divergence, "reconstruction": error}
        return Loss(divergence + self._params.reconstruction * error, None, said, logs)

    def unmeasurable(self, samples: int, targets: Tensor | None) -> Mapping[str, str]:
        return {}

    def metrics(self) -> MetricCollection:
        with lean_torchmetrics():
            from torchmetrics import MetricCollection

            from epochal.catalog.cluster_metrics import ClusterAccuracy, NormalizedMutualInformation

        classes = self._info.target.width
        known: dict[str, Callable[[], Metric]] = {
            "accuracy": lambda: ClusterAccuracy(classes),
            "nmi": lambda: NormalizedMutualInformation(classes),
        }
        return MetricCollection({name: known[name]() for name in self.metric_names}, compute_groups=False)

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        metrics.update(outputs.shares.argmax(dim=1), batch["target"])


def _dec(model: nn.Module) -> Dec:
    if not isinstance(model, Dec):
        raise EpochalError(f"clustering needs the architecture dec, not {type(model).__name__}")
    return model


def k_means(points: Tensor, clusters: int, generator: torch.Generator, starts: int = 10) -> tuple[Tensor, Tensor]:
    """The best of some starts of Lloyd's algorithm (1982) from centres that lie apart (k-means++, Arthur and
    Vassilvitskii 2007). points: (points, values); returns the centres (clusters, values) and each point's (points,).
    """
    found: list[tuple[float, Tensor, Tensor]] = []
    for _ in range(starts):
        centres = points[torch.randint(len(points), (1,), generator=generator)]
        while len(centres) < clusters:
            far = torch.cdist(points, centres).amin(dim=1).square().double() + 1e-12
            centres = torch.cat([centres, points[torch.multinomial(far, 1, generator=generator)]])
        nearest = torch.cdist(points, centres).argmin(dim=1)
        for _ in range(100):
            sums = torch.zeros_like(centres).index_add_(0, nearest, points)
            counts = torch.bincount(nearest, minlength=clusters)[:, None]
            centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
            before, nearest = nearest, torch.cdist(points, centres).argmin(dim=1)
            if torch.equal(before, nearest):
                break
        error = float((points - centres[nearest]).square().sum())
        found.append((error, centres, nearest))
    _, centres, nearest = min(found, key=lambda one: one[0])
    return centres, nearest


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
