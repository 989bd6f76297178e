"""What `train.compile` does on one worker; test_parity has it on several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import training_pieces as pieces
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.worker import Worker


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = pieces.mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


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
