"""Models that are called with several fields, in MLflow's format: by name, of any batch, without Epochal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from epochal.engine import served_program
from epochal.engine.served_program import export_program
from epochal.tracking.model import save_program

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
