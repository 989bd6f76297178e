"""Optimizers that step on whole matrices: with several workers, and after a stop."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_parity import of_gang
from test_resume import losses, run

import training_pieces as pieces
from epochal.catalog.build import build_optimizer
from epochal.spec.job import Optimizer
from training_gang import TestGang

CHOICES: list[dict[str, Any]] = [
    {"name": "muon", "lr": 0.02},
    {"name": "lbfgs", "lr": 0.5, "max_iter": 3, "history_size": 2},
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice["name"])
def test_several_workers_train_as_one_and_go_on_exactly(gang: TestGang, tmp_path: Path, choice: dict[str, Any]) -> None:
    job = pieces.spec(epochs=3, global_batch_size=25, checkpoint__every="1ep")
    build = partial(build_optimizer, Optimizer(**choice))
    _, one = of_gang(gang, 1, "ddp", job, tmp_path / "one", optimizer=build)
    _, two = of_gang(gang, 2, "ddp", job, tmp_path / "two", optimizer=build)
    # Muon orthogonalises in bfloat16, which takes a rounding apart for another number.
    close = 2e-2 if choice["name"] == "muon" else 1e-3
    assert [loss for _, loss in two["train/loss"]] == pytest.approx([loss for _, loss in one["train/loss"]], rel=close)
    changes = {"optimizer": build}
    longer = pieces.spec(epochs=9, global_batch_size=13, micro_batch_size=5)
    unbroken = run(gang, (2, "ddp"), longer, tmp_path / "unbroken", changes=changes)
    stopped = run(gang, (2, "ddp"), longer, tmp_path / "broken", {"stop_after": 7}, changes)
    resumed = run(gang, (2, "ddp"), longer, tmp_path / "broken", changes=changes)
    assert losses(resumed)
    assert losses(stopped) | losses(resumed) == losses(unbroken)
