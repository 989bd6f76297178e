"""Models in MLflow's format: they load, predict and can be served, without a tracking server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from epochal.tracking.model import save_model
from epochal.urls import free_port

IMAGES = np.random.default_rng(0).standard_normal((4, 1, 8, 8)).astype("float32")


class DataDependent(nn.Module):
    """Its control flow depends on values, so that no graph of it can be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if x.sum() > 0 else self.linear(-x)


def network() -> nn.Module:
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(256, 10))


def expected(module: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module.eval()(torch.from_numpy(x)).numpy()


def test_a_saved_model_loads_and_predicts_any_batch(tmp_path: Path) -> None:
    import mlflow

    module = network()
    start = time.perf_counter()
    saved = save_model(module, IMAGES, tmp_path / "model" / "mlflow")
    first, start = time.perf_counter() - start, time.perf_counter()
    save_model(module, IMAGES, tmp_path / "again")
    print(f"save_model: first {first:.2f} s, then {time.perf_counter() - start:.2f} s")
    assert (saved.format, saved.reason) == ("pt2", "")
    assert module.training
    for size in (1, 2, 7):
        x = np.resize(IMAGES, (size, 1, 8, 8))
        served = mlflow.pyfunc.load_model(str(saved.folder)).predict(x)
        np.testing.assert_allclose(served, expected(module, x), atol=1e-5)
    loaded = mlflow.pytorch.load_model(str(saved.folder))
    np.testing.assert_allclose(loaded(torch.from_numpy(IMAGES)).detach(), expected(module, IMAGES), atol=1e-5)


def test_the_description_is_complete(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("trained today")
    saved = save_model(network(), IMAGES, tmp_path / "mlflow", extra_files=[notes], requirements=["scikit-learn"])
    described = yaml.safe_load((saved.folder / "MLmodel").read_text())
    assert json.loads(described["signature"]["inputs"])[0]["tensor-spec"]["shape"] == [-1, 1, 8, 8]
    assert json.loads(described["signature"]["outputs"])[0]["tensor-spec"]["shape"] == [-1, 10]
    assert described["saved_input_example_info"]["type"] == "ndarray"
    requirements = (saved.folder / "requirements.txt").read_text().split()
    assert f"torch=={torch.__version__.split('+')[0]}" in requirements
    assert "scikit-learn" in requirements
    assert (saved.folder / "extra_files" / "notes.txt").read_text() == "trained today"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_cannot_be_traced_is_pickled_and_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import mlflow

    module = DataDependent()
    saved = save_model(module, np.ones((2, 4), "float32"), tmp_path / "mlflow", code_paths=[Path(__file__)])
    assert saved.format == "pickle"
    assert saved.reason.startswith("torch.export: ")
    assert saved.tags["epochal.model_format_reason"] == saved.reason
    assert "".join(capfd.readouterr()) == ""
    x = -np.ones((3, 4), "float32")
    np.testing.assert_allclose(mlflow.pyfunc.load_model(str(saved.folder)).predict(x), expected(module, x), atol=1e-6)
    assert (saved.folder / "code" / Path(__file__).name).exists()


def test_token_ids_are_whole_numbers(tmp_path: Path) -> None:
    import mlflow

    module = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(20, 3))
    saved = save_model(module, np.arange(10).reshape(2, 5), tmp_path / "mlflow")
    assert saved.format == "pt2"
    assert mlflow.pyfunc.load_model(str(saved.folder)).predict(np.ones((6, 5), "int64")).shape == (6, 3)


def test_one_sample_is_no_example(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        save_model(network(), IMAGES[:1], tmp_path / "mlflow")


def test_a_failed_save_leaves_the_old_model(tmp_path: Path) -> None:
    folder = save_model(network(), IMAGES, tmp_path / "mlflow").folder
    before = (folder / "MLmodel").read_text()
    with pytest.raises(Exception, match="does-not-exist"):
        save_model(network(), IMAGES, folder, extra_files=[tmp_path / "does-not-exist"])
    assert (folder / "MLmodel").read_text() == before


def test_the_scoring_server_answers(tmp_path: Path) -> None:
    import mlflow
    from mlflow.pyfunc.scoring_server import init
    from starlette.testclient import TestClient

    module = network()
    saved = save_model(module, IMAGES, tmp_path / "mlflow")
    client = TestClient(init(mlflow.pyfunc.load_model(str(saved.folder))))
    answer = client.post("/invocations", json={"inputs": IMAGES.tolist()})
    assert answer.status_code == 200
    np.testing.assert_allclose(answer.json()["predictions"], expected(module, IMAGES), atol=1e-4)


@pytest.mark.slow
def test_mlflow_serves_it(tmp_path: Path) -> None:
    module = network()
    saved = save_model(module, IMAGES, tmp_path / "mlflow")
    port = free_port()
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(saved.folder), *options]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow looks there for uvicorn
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "PATH": path}, start_new_session=True
        )
    try:
        predictions = _ask(server, f"http://127.0.0.1:{port}/invocations")
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    np.testing.assert_allclose(predictions, expected(module, IMAGES), atol=1e-4)


def _ask(server: subprocess.Popen[bytes], url: str) -> list[list[float]]:
    body = json.dumps({"inputs": IMAGES.tolist()}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)["predictions"]
        except OSError:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.3)
