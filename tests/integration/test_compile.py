"""What `train.compile` does on one worker; test_parity has it on several."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import phased_pieces
import training_pieces as pieces
from epochal.catalog.architectures.autoencoder import AutoencoderParams
from epochal.catalog.architectures.vae import Vae
from epochal.catalog.build import build_task
from epochal.catalog.task import Loss
from epochal.spec.section import Component
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.control import Noted, NullControl
from epochal.training.fit import fit
from epochal.training.worker import Worker


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = pieces.mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Told(NullControl):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def report(self, report: Any) -> None:
        if isinstance(report, Noted):
            self.notes.append(report.note)


class OfParameters(pieces.Classification):
    """Calls no module at all."""

    def loss(self, model: nn.Module, batch: Any) -> Loss:
        outputs = F.linear(batch["input"], model.get_parameter("weight"), model.get_parameter("bias"))
        return Loss(F.cross_entropy(outputs, batch["target"], reduction="sum"), None, outputs)


def linear() -> nn.Module:
    return nn.Linear(pieces.FEATURES, pieces.CLASSES)


def vae() -> nn.Module:
    return Vae(AutoencoderParams(hidden=[8], latent=2), pieces.data().info)


def variational() -> Any:
    params = {"metrics": ["mse"]}
    return build_task(Component(name="variational", params=params), Component(name="mine"), pieces.data().info)


@pytest.mark.parametrize(
    ("build", "task", "graphs"),
    [(phased_pieces.Gan, phased_pieces.Adversarial, 2), (vae, variational, 2), (linear, OfParameters, 0)],
    ids=["phases", "variational", "no-part"],
)
def test_parts_that_a_task_calls_are_compiled_or_that_none_is_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Any, task: Any, graphs: int
) -> None:
    """What is traced decides: the C++ of it would take a minute to compile."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    told, curves = Told(), []
    for compiled in (True, False):
        recorder = MemoryRecorder()
        job = pieces.spec(steps=2, epochs=None, compile=compiled)
        fit(pieces.setup(job, build, task=task()), Worker(), tmp_path / str(compiled), recorder, told)
        curves.append([loss for _, loss in recorder.history["train/loss"]])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= graphs
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    assert [note.split(":")[0] for note in told.notes] == ([] if graphs else ["train.compile has no effect"])


def test_each_size_of_batch_has_a_graph_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for all sizes rounds otherwise than one for the first, so that a resumed training would end elsewhere."""
    sizes: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        sizes.extend(size for one in inputs for size in (one.shape if isinstance(one, torch.Tensor) else [one]))
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    job = pieces.spec(epochs=2, compile=True, global_batch_size=22)
    data = pieces.data()
    assert len(data.train) % 22
    fit(pieces.setup(job, Own), Worker(), tmp_path, MemoryRecorder(), NullControl())
    assert not [size for size in sizes if isinstance(size, torch.SymInt)]
    assert {22, len(data.train) % 22} <= set(sizes)


def losses(folder: Path, build: Callable[[], nn.Module], compiled: bool) -> list[float]:
    recorder = MemoryRecorder()
    setup = pieces.setup(pieces.spec(epochs=1, compile=compiled), build)
    fit(setup, Worker(), folder, recorder, NullControl())
    return [loss for _, loss in recorder.history["train/loss"]]


@pytest.mark.slow
@pytest.mark.parametrize("build", [Own, pieces.mlp])
def test_a_model_is_compiled_and_the_same(tmp_path: Path, build: Callable[[], nn.Module]) -> None:
    """The second is an ``nn.Sequential``, which torch's own ``Module.compile`` leaves as it is."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = losses(tmp_path / "compiled", build, compiled=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert compiled == pytest.approx(losses(tmp_path / "plain", build, compiled=False), rel=1e-5)
    files = [load_file(tmp_path / name / "model" / "weights.safetensors") for name in ("compiled", "plain")]
    assert files[0].keys() == files[1].keys()
