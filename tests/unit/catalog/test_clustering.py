"""Clustering: how it starts, and how clusters are compared with classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor, nn

from epochal.catalog.architectures.dec import Dec, DecParams
from epochal.catalog.build import build_task, load_data
from epochal.catalog.cluster_metrics import ClusterAccuracy, NormalizedMutualInformation
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.tasks.clustering import k_means
from epochal.errors import EpochalError, SpecError
from epochal.spec.job import JobSpec
from epochal.spec.section import Component
from epochal.training.setup import prepare

SPEC = {
    "version": 1,
    "name": "job",
    "model": {"name": "dec", "params": {"hidden": [32], "latent": 4}},
    "data": {"name": "wine"},
    "task": {"name": "clustering", "params": {"start_epochs": 30}},
    "train": {"epochs": 1, "global_batch_size": 32},
}


def test_k_means_finds_points_that_lie_together() -> None:
    generator = torch.Generator().manual_seed(0)
    middles = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    own = torch.arange(60) % 3
    points = middles[own] + 0.1 * torch.randn(60, 2, generator=generator)
    centres, nearest = k_means(points, 3, generator)
    for middle in range(3):
        assert len(nearest[own == middle].unique()) == 1
        torch.testing.assert_close(centres[nearest[own == middle][0]], points[own == middle].mean(dim=0))


def test_clusters_have_no_names_and_no_order() -> None:
    target = torch.tensor([0, 0, 1, 1, 2, 2])
    accuracy, nmi = ClusterAccuracy(3), NormalizedMutualInformation(3)
    for metric in (accuracy, nmi):
        metric.update(torch.tensor([2, 2, 0, 0, 1, 1]), target)
        assert metric.compute() == pytest.approx(1.0)
    accuracy.reset()
    accuracy.update(torch.tensor([1, 1, 1, 0, 0, 0]), target)
    assert accuracy.compute() == pytest.approx(4 / 6)


def test_mutual_information_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    clusters, target = torch.randint(4, (2, 200), generator=generator)
    clusters[:80] = target[:80]
    metric = NormalizedMutualInformation(4)
    for part in (slice(0, 50), slice(50, 200)):
        metric.update(clusters[part], target[part])
    assert float(metric.compute()) == pytest.approx(normalized_mutual_info_score(target, clusters))


def test_a_training_starts_from_clusters_that_are_the_same_on_every_worker(tmp_path: Path) -> None:
    one, other = (prepare(JobSpec.model_validate(SPEC), tmp_path) for _ in range(2))
    weights = (one.model.state_dict(), other.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert isinstance(one.model, Dec)
    assert float(one.model.sizes.sum()) == pytest.approx(1.0)
    assert all(parameter.grad is None for parameter in one.model.parameters())
    batch = one.data.train.fetch(range(len(one.data.train)))  # type: ignore[union-attr]
    metrics = one.task.metrics()
    with torch.no_grad():
        said = one.model(batch["input"])
        one.task.update(metrics, said, batch)  # type: ignore[attr-defined]
    assert metrics.compute()["accuracy"] > 0.8, "cultivars of wine lie apart"
    assert (said.made - batch["input"]).square().mean() < 0.8, "1 is what the mean leaves"


def test_shares_are_sharpened_the_less_the_larger_the_cluster_was() -> None:
    info = DataInfo(Field((4,)), Field((), torch.int64, 2))
    task = build_task(Component(name="clustering"), Component(name="wine"), info)
    model = Dec(DecParams(hidden=[3], latent=1), values=4, clusters=2)
    model.sizes.copy_(torch.tensor([0.8, 0.2]))
    with torch.no_grad():
        model.centres.copy_(torch.tensor([[1.0], [-1.0]]))
        for parameter in model.encoder.parameters():
            parameter.zero_()
    batch = {"input": torch.zeros(1, 4), "target": torch.zeros(1, dtype=torch.int64)}
    loss = task.loss(model, batch)
    expected: Tensor = torch.tensor([0.2, 0.8])  # of shares of a half each
    assert float(loss.logs["divergence"].detach()) == pytest.approx(
        float((expected * (expected / 0.5).log()).sum()), abs=1e-6
    )


def test_another_model_or_target_is_refused(tmp_path: Path) -> None:
    data = load_data(Component(name="wine"), tmp_path)
    task = build_task(Component(name="clustering"), Component(name="wine"), data.info)
    with pytest.raises(EpochalError, match="clustering needs a model that gives Clustered, not Tensor"):
        task.loss(nn.Linear(13, 3), data.train.fetch([0]))  # type: ignore[union-attr]
    with pytest.raises(SpecError, match="a class a sample to compare"):
        build_task(Component(name="clustering"), Component(name="wine"), DataInfo(Field((4,)), Field(())))
