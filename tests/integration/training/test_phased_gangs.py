"""Steps of several phases, for any number of workers and after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_parity import SHARDED, of_gang
from test_resume import losses, run

import phased_pieces
import training_pieces as pieces
from training_gang import TestGang

NAMES = ("train/loss", "train/discriminator_loss", "train/generator_loss", "train/fooled", "val/loss", "val/mean")
SETTINGS: list[dict[str, Any]] = [
    {"clip_grad_norm": 0.3, "micro_batch_size": 2},
    {"precision": "bf16", "average": {"kind": "ema", "decay": 0.9}},
]


@pytest.mark.parametrize(("world_size", "strategy"), SHARDED[1:])
def test_equals_one_worker(gang: TestGang, tmp_path: Path, world_size: int, strategy: str) -> None:
    """With validations between steps, after which a sharded model's parameters are still whole."""
    job = pieces.spec(epochs=2, clip_grad_norm=0.3, micro_batch_size=2, validate_every="3steps")
    plain = phased_pieces.plain_loop(job, pieces.sgd)
    changes = {"build": phased_pieces.Gan, "task": phased_pieces.Adversarial(), "optimizer": pieces.sgd}
    _, one = of_gang(gang, 1, strategy, job, tmp_path / "one", **changes)
    _, many = of_gang(gang, world_size, strategy, job, tmp_path / "many", **changes)
    for name in NAMES:
        assert [value for _, value in many[name]] == pytest.approx([value for _, value in one[name]], rel=2e-5)
    for name, values in plain.items():
        assert [value for _, value in many[name]] == pytest.approx(values, rel=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_compiled_is_the_same(gang: TestGang, tmp_path: Path, strategy: str) -> None:
    job = pieces.spec(epochs=2, compile=True)
    changes = {"build": phased_pieces.Gan, "task": phased_pieces.Adversarial(), "optimizer": pieces.sgd}
    _, many = of_gang(gang, 2, strategy, job, tmp_path, **changes)
    for name, values in phased_pieces.plain_loop(job, pieces.sgd).items():
        assert [value for _, value in many[name]] == pytest.approx(values, rel=1e-4)


@pytest.mark.parametrize("strategy", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_batch_norms_and_weights_that_only_a_worker_knows(gang: TestGang, tmp_path: Path, strategy: str) -> None:
    job = pieces.spec(epochs=2, global_batch_size=5)
    changes = {"build": phased_pieces.normed_gan, "task": phased_pieces.WeightedAdversarial(), "optimizer": pieces.sgd}
    _, one = of_gang(gang, 1, strategy, job, tmp_path / "one", **changes)
    _, many = of_gang(gang, 2, strategy, job, tmp_path / "many", **changes)
    for name in NAMES:
        assert [value for _, value in many[name]] == pytest.approx([value for _, value in one[name]], rel=2e-5)


@pytest.mark.parametrize("kind", [(1, "ddp"), pytest.param((2, "ddp"), marks=pytest.mark.slow), (2, "fsdp")])
@pytest.mark.parametrize(
    "settings", [pytest.param(SETTINGS[0], marks=pytest.mark.slow), SETTINGS[1]], ids=["clipped", "averaged"]
)
def test_stopped_goes_on_exactly(
    gang: TestGang, tmp_path: Path, kind: tuple[int, str], settings: dict[str, Any]
) -> None:
    job = pieces.spec(epochs=3, validate_every="5steps", **settings)
    changes = {"task": phased_pieces.Adversarial()}
    unbroken = run(gang, kind, job, tmp_path / "unbroken", changes=changes, build=phased_pieces.Gan)
    stopped = run(gang, kind, job, tmp_path / "broken", {"stop_after": 6}, changes, phased_pieces.Gan)
    resumed = run(gang, kind, job, tmp_path / "broken", changes=changes, build=phased_pieces.Gan)
    assert losses(resumed)
    assert losses(stopped) | losses(resumed) == losses(unbroken)
    assert resumed[0][0].metrics == unbroken[0][0].metrics
