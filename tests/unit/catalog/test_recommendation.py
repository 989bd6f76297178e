"""What is recommended: who took what, negatives that were never taken, ranks as torchmetrics' retrieval has them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchmetrics.retrieval import RetrievalHitRate, RetrievalNormalizedDCG

from epochal.catalog.build import load_data
from epochal.catalog.data import DataInfo, Field, LoadedData
from epochal.catalog.tasks.recommendation import RecommendationParams, build
from epochal.errors import SpecError
from epochal.spec.section import Component

INFO = DataInfo(
    Field((), torch.int64, 5),
    Field((), torch.int64, 20),
    {"candidates": Field((20,), torch.int64, 40)},
    inputs=("input", "candidates"),
)


def ratings(folder: Path, **params: object) -> LoadedData:
    return load_data(Component(name="ratings", params=params), folder)


def test_candidates_are_one_taken_and_others_that_never_were(tmp_path: Path) -> None:
    data = ratings(tmp_path, users=30, items=40, taken=8, negatives=12)
    rows = []
    for _, split in data.splits():
        batch = split.fetch(range(len(split)))
        rows += zip(*(batch[name].tolist() for name in ("input", "target", "candidates")), strict=True)
        assert set(batch["input"].tolist()) == set(range(30))  # nobody is unknown in validation
    taken: dict[int, set[int]] = {user: set() for user in range(30)}
    for user, place, items in rows:
        taken[user].add(items[place])
    assert {len(items) for items in taken.values()} == {8}
    for user, place, items in rows:
        assert not set(items[:place] + items[place + 1 :]) & taken[user]


def test_a_table_is_read_by_its_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("who,what,stars\nann,tea,5\nann,milk,4\nbob,tea,1\nbob,rice,3\n")
    data = ratings(tmp_path, path="t.csv", user="who", item="what", negatives=3, validation=0)
    assert (data.info.input.classes, data.info.more["candidates"].classes) == (2, 3)
    batch = data.train.fetch(range(4))
    assert batch["candidates"].gather(1, batch["target"][:, None]).flatten().tolist() == [2, 0, 2, 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [("ann,tea\nbob,", "column 'what', row"), ("ann,tea\nbob,tea", "a user took every item")],
    ids=["missing", "all"],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(f"who,what\n{rows}\n")
    with pytest.raises(SpecError, match=message):
        ratings(tmp_path, path="t.csv", user="who", item="what")


@pytest.mark.parametrize("k", [1, 5])
def test_ranks_are_those_of_torchmetrics(k: int) -> None:
    task, generator = build(RecommendationParams(k=k), INFO), torch.Generator().manual_seed(0)
    scores = torch.randn(50, 20, generator=generator)
    batch = INFO.example(50)
    metrics = task.metrics()
    task.update(metrics, scores, batch)
    relevant = torch.nn.functional.one_hot(batch["target"], 20).flatten()
    indexes = torch.arange(50).repeat_interleave(20)
    theirs = {"hit_rate": RetrievalHitRate(top_k=k), "ndcg": RetrievalNormalizedDCG(top_k=k)}
    for name, metric in theirs.items():
        torch.testing.assert_close(metrics[name].compute(), metric(scores.flatten(), relevant, indexes))


@pytest.mark.parametrize("score", [0.0, torch.nan])
def test_a_model_that_tells_nothing_apart_hits_nothing(score: float) -> None:
    task = build(RecommendationParams(), INFO)
    metrics = task.metrics()
    task.update(metrics, torch.full((50, 20), score), INFO.example(50))
    assert metrics.compute() == {"hit_rate": 0, "ndcg": 0}
