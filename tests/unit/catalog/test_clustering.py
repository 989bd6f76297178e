"""Clustering: how centres are placed and targets taken, and how clusters are compared with classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from epochal.catalog.architectures.dec import Dec, DecParams
from epochal.catalog.build import build_task, load_data
from epochal.catalog.cluster_metrics import ClusterAccuracy, NormalizedMutualInformation
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.tasks.clustering import k_means
from epochal.errors import EpochalError, SpecError
from epochal.spec.section import Component

INFO = DataInfo(Field((6,)), Field((), torch.int64, 3))
POINTS = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)) + 4 * torch.eye(6)[torch.arange(60) % 3]
BATCH = {"input": POINTS, "target": torch.arange(60) % 3}


def task(**params: Any) -> Any:
    return build_task(Component(name="clustering", params=params), Component(name="wine"), INFO)


def model() -> Dec:
    torch.manual_seed(0)
    return Dec(DecParams(hidden=[8], latent=2), values=6, clusters=3)


def test_k_means_finds_points_that_lie_together() -> None:
    generator = torch.Generator().manual_seed(0)
    middles = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    own = torch.arange(60) % 3
    points = middles[own] + 0.1 * torch.randn(60, 2, generator=generator)
    centres = k_means(points, 3, generator)
    for middle in range(3):
        found = centres[torch.cdist(middles[middle : middle + 1], centres).argmin()]
        torch.testing.assert_close(found, points[own == middle].mean(dim=0))


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
    from sklearn.metrics import normalized_mutual_info_score  # a second, which no other test need spend

    generator = torch.Generator().manual_seed(0)
    clusters, target = torch.randint(4, (2, 200), generator=generator)
    clusters[:80] = target[:80]
    metric = NormalizedMutualInformation(4)
    for part in (slice(0, 50), slice(50, 200)):
        metric.update(clusters[part], target[part])
    assert float(metric.compute()) == pytest.approx(normalized_mutual_info_score(target, clusters))


def test_the_autoencoder_alone_is_trained_until_the_centres_are_placed() -> None:
    dec, learning = model(), task(pretrain_steps=7, target_every=3)
    assert [step for step in range(16) if learning.takes_stock(step)] == [7, 10, 13]
    loss = learning.loss(dec, BATCH)
    torch.testing.assert_close(loss.total, (dec(POINTS).made - POINTS).square().mean(1).sum())
    loss.total.backward()
    assert not dec.centres.grad.any()  # type: ignore[union-attr]


def test_targets_are_those_of_the_paper_and_stay_until_they_are_taken_anew() -> None:
    dec, learning = model(), task(pretrain_steps=0)
    with torch.no_grad():
        learning.take_stock(dec, 0, lambda compute: compute(BATCH))
        latent = dec.encoder(POINTS)
        torch.testing.assert_close(dec.centres, k_means(latent, 3, torch.Generator().manual_seed(0)))
        near = 1 / (1 + torch.cdist(latent, dec.centres).square())
        shares = near / near.sum(1, keepdim=True)
        weighted = shares.square() / shares.sum(0)
        expected = weighted / weighted.sum(1, keepdim=True)
        torch.testing.assert_close(dec.targets(POINTS), expected, rtol=1e-3, atol=1e-5)
        for parameter in dec.parameters():
            parameter.mul_(1.1)
    torch.testing.assert_close(dec.targets(POINTS), expected, rtol=1e-3, atol=1e-5)
    loss = learning.loss(dec, BATCH)
    torch.testing.assert_close(
        loss.total, F.kl_div(dec(POINTS).shares.log(), expected, reduction="sum"), rtol=1e-3, atol=1e-4
    )
    loss.total.backward()
    assert all(one.grad is not None and not one.grad.any() for one in dec.decoder.parameters())
    assert dec.centres.grad.any()  # type: ignore[union-attr]


def test_another_model_or_target_is_refused(tmp_path: Path) -> None:
    data = load_data(Component(name="wine"), tmp_path)
    learning = build_task(Component(name="clustering"), Component(name="wine"), data.info)
    with pytest.raises(EpochalError, match="clustering needs the architecture dec, not Linear"):
        learning.loss(nn.Linear(13, 3), data.train.fetch([0]))
    with pytest.raises(SpecError, match="a class a sample to compare"):
        build_task(Component(name="clustering"), Component(name="wine"), DataInfo(Field((4,)), Field(())))
