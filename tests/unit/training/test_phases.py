"""Steps of several phases, on one worker."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import phased_pieces
import training_pieces as pieces
from epochal.catalog.build import build_optimizer
from epochal.catalog.task import Phase
from epochal.errors import TrainingError
from epochal.spec.job import Optimizer
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.phases import passes, shared_out
from epochal.training.segment import WHOLE, Segment
from epochal.training.worker import Worker


def train(job: Any, folder: Path, segment: Segment = WHOLE, **changes: Any) -> dict[str, list[tuple[int, float]]]:
    recorder = MemoryRecorder()
    setup = pieces.setup(job, changes.pop("build", phased_pieces.Gan), task=phased_pieces.Adversarial(), **changes)
    fit(setup, Worker(), folder, recorder, NullControl(), segment)
    return recorder.history


@pytest.mark.parametrize("optimizer", [pieces.sgd, pieces.adamw], ids=["sgd", "adamw"])
@pytest.mark.parametrize("settings", [{}, {"clip_grad_norm": 0.3}, {"micro_batch_size": 3}], ids=str)
def test_is_a_loop_with_an_optimizer_for_each_phase(tmp_path: Path, settings: dict[str, Any], optimizer: Any) -> None:
    job = pieces.spec(epochs=3, **settings)
    history = train(job, tmp_path, optimizer=optimizer)
    for name, values in phased_pieces.plain_loop(job, optimizer).items():
        assert [value for _, value in history[name]] == pytest.approx(values, rel=1e-5)
    assert all(0 <= 8 * share <= 8 for _, share in history["train/fooled"])
    assert ("train/grad_norm" in history) == ("clip_grad_norm" in settings)


def test_fp16_and_averaged_weights_go_with_phases(tmp_path: Path) -> None:
    job = pieces.spec(epochs=2, precision="fp16", average={"kind": "ema", "decay": 0.5})
    history = train(job, tmp_path, optimizer=pieces.sgd)
    plain = phased_pieces.plain_loop(job, pieces.sgd)["train/loss"]
    assert [value for _, value in history["train/loss"]] == pytest.approx(plain, rel=2e-2)


def test_each_phase_counts_in_its_own_weight(tmp_path: Path) -> None:
    class Doubled(phased_pieces.Adversarial):
        def weight(self, batch: Any) -> Any:
            return torch.tensor(2.0 * len(batch["input"]))

    job, recorder = pieces.spec(epochs=1), MemoryRecorder()
    fit(pieces.setup(job, phased_pieces.Gan, task=Doubled()), Worker(), tmp_path, recorder, NullControl())
    first, plain = (one["train/loss"][0][1] for one in (recorder.history, train(job, tmp_path / "plain")))
    assert first == pytest.approx(plain / 2)


def test_only_the_parameters_of_a_phase_require_gradients() -> None:
    model, task = phased_pieces.Gan(), phased_pieces.Adversarial()
    model.get_parameter("generator.0.bias").requires_grad_(False)
    before = {name: one.requires_grad for name, one in model.named_parameters()}
    asked = [{name for name, one in model.named_parameters() if one.requires_grad} for _ in passes(task, model)]
    assert asked[0] == {name for name in before if name.startswith("discriminator")}
    assert asked[1] == {name for name in before if name.startswith("generator")} - {"generator.0.bias"}
    assert {name: one.requires_grad for name, one in model.named_parameters()} == before


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ({"a": ["one.*"], "b": ["three.*"]}, r"no parameter that is trained matches three\.\*, of the phase b"),
        ({"a": ["one.*"]}, r"two\.weight would be trained in no phase"),
        ({"a": ["*"], "b": ["two.*"]}, r"two\.weight would be trained in several phases"),
    ],
    ids=["none", "left-out", "twice"],
)
def test_each_parameter_is_in_one_phase(phases: dict[str, list[str]], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        shared_out([Phase(name, tuple(patterns)) for name, patterns in phases.items()], ["one.weight", "two.weight"])


def test_what_several_phases_log_has_several_names(tmp_path: Path) -> None:
    class Twice(phased_pieces.Adversarial):
        def loss(self, model: Any, batch: Any, phase: Any = None) -> Any:
            return super().loss(model, batch, phase)._replace(logs={"score": torch.tensor(0.0)})

    setup = partial(pieces.setup, pieces.spec(), phased_pieces.Gan)
    with pytest.raises(TrainingError, match="logs score in several phases"):
        fit(setup(task=Twice()), Worker(), tmp_path, MemoryRecorder(), NullControl())


def test_an_optimizer_that_goes_over_a_batch_again_takes_no_phases(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="lbfgs goes over a batch several times"):
        train(pieces.spec(), tmp_path, optimizer=partial(build_optimizer, Optimizer(name="lbfgs", lr=1)))
