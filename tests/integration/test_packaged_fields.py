"""Models that are called with several fields, in MLflow's format: by name, of any batch, without Epochal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from epochal.catalog.architectures import ARCHITECTURES
from epochal.catalog.build import build_model, load_data
from epochal.engine import served_program
from epochal.engine.packaging import package
from epochal.engine.served_program import ServedProgram, export_program
from epochal.spec.job import JobSpec
from epochal.tracking.desired_run import model_folder
from epochal.tracking.model import save_program
from epochal.training import example, weights
from epochal.training.control import NullControl

ALONE = """
import sys
import numpy as np
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
made = model.predict({"shown": np.ones((5, 2), "float32"), "input": np.arange(5)})
assert not any(name.startswith("epochal") for name in sys.modules)
print(made.tolist())
"""


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.items, self.linear = nn.Embedding(6, 3), nn.Linear(2, 3)

    def forward(self, shown: Tensor, item: Tensor) -> Tensor:
        """shown: (batch, 2), item: (batch,); returns (batch,)."""
        return (self.items(item) * self.linear(shown)).sum(-1)


def test_it_predicts_by_names_and_needs_no_epochal(tmp_path: Path) -> None:
    module = Pair()
    samples = {"shown": torch.randn(2, 2), "input": torch.tensor([1, 5])}
    outputs = export_program(module, samples, file := tmp_path / "program.pt2")
    arrays = {name: tensor.numpy() for name, tensor in samples.items()}
    saved = save_program(file, Path(served_program.__file__), (arrays, outputs), tmp_path / "mlflow")
    described = yaml.safe_load((saved.folder / "MLmodel").read_text())
    assert [one["name"] for one in json.loads(described["signature"]["inputs"])] == ["shown", "input"]
    command = [sys.executable, "-c", ALONE, str(saved.folder)]
    alone = subprocess.run(command, capture_output=True, text=True, check=True, env={})
    with torch.no_grad():
        expected = module(torch.ones(5, 2), torch.arange(5)).numpy()
    np.testing.assert_allclose(json.loads(alone.stdout), expected, atol=1e-5)


NAMED = ("dec", "detector", "actor-critic")
"""Of those that are called with one field those that give a named tuple."""
SEVERAL = [name for name, _ in ARCHITECTURES.built_in() if len(ARCHITECTURES.get(name).example.inputs) > 1]


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=() if one in ("ctc", "dec") else pytest.mark.slow) for one in (*SEVERAL, *NAMED)]
)
def test_those_of_the_catalog_are_traced_for_any_batch(name: str, tmp_path: Path) -> None:
    entry = ARCHITECTURES.get(name)
    info, model = entry.example, entry.build(entry.params(), entry.example).eval()
    two, five = ({name: info.example(count)[name] for name in info.inputs} for count in (2, 5))
    export_program(model, two, file := tmp_path / "program.pt2")
    served = ServedProgram(torch.export.load(file), info.inputs)
    with torch.no_grad():
        expected = info.call(model, five)
    found = served.predict({name: tensor.numpy() for name, tensor in five.items()})
    if name in NAMED:
        assert [*found] == [*expected._fields]
        found = found.values()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-5)


def described(model: dict[str, Any], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The signature of that model, untrained, in MLflow's format."""
    train = {"epochs": 1}
    spec = JobSpec.model_validate(
        {"version": 1, "name": "job", "model": model, "data": {"name": "digits"}, "train": train}
    )
    data = load_data(spec.data, folder)
    example.keep(data, spec, folder)
    weights.export(build_model(spec.model, data.info), folder / weights.FILE, first=True)
    context: Any = SimpleNamespace(folder=folder, control=NullControl())
    assert package(spec.model_dump(mode="json"), context) == {"epochal.model_format": "pt2"}
    signature = yaml.safe_load((model_folder(folder) / "MLmodel").read_text())["signature"]
    return {side: json.loads(signature[side]) for side in ("inputs", "outputs")}


def test_a_model_that_gives_a_named_tuple_is_packaged_with_its_names(tmp_path: Path) -> None:
    assert [one["name"] for one in described({"name": "dec"}, tmp_path)["outputs"]] == ["shares", "made"]


def test_of_a_gan_the_generator_is_packaged(tmp_path: Path) -> None:
    params = {"latent": 5, "channels": [4, 8]}
    signature = described({"name": "dcgan", "params": params}, tmp_path)
    assert [one["tensor-spec"]["shape"] for one in signature["inputs"]] == [[-1, 5]]
    assert [one["tensor-spec"]["shape"] for one in signature["outputs"]] == [[-1, 1, 8, 8]]


@pytest.mark.slow
def test_a_diffusion_model_is_packaged_with_its_time(tmp_path: Path) -> None:
    params = {"channels": 4, "multipliers": [1, 2], "attention": [], "blocks": 1}
    signature = described({"name": "ddpm", "params": params}, tmp_path)
    assert [one["name"] for one in signature["inputs"]] == ["input", "time"]
    loaded = mlflow.pyfunc.load_model(str(model_folder(tmp_path)))
    x = np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype("float32")
    early, late = (loaded.predict({"input": x, "time": np.full(3, time)}) for time in (0, 900))
    assert early.shape == x.shape
    assert early.shape == late.shape
