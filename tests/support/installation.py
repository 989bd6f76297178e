"""A release of the chart whose parts break and come back, and the slow job that trains on it meanwhile."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from epochal.client.client import Client
from epochal.errors import EpochalError
from epochal.urls import free_port
from kubernetes_cluster import ROOT, Kubernetes, environment
from polling import until

SLOW_JOB = ROOT / "tests" / "faults" / "slow_job" / "job.yaml"
STEPS = 300

Curve = list[tuple[int, float]]

HISTORY = """
import json, sys, mlflow
client = mlflow.MlflowClient()
points = client.get_metric_history(sys.argv[1], "train/loss")
print(json.dumps([client.get_run(sys.argv[1]).info.status, sorted((one.step, one.value) for one in points)]))
"""


@dataclass
class Installation:
    """The chart in a namespace, seen from outside. A port that is not forwarded any more is forwarded anew."""

    kubernetes: Kubernetes
    namespace: str
    port: int = field(default_factory=free_port)
    forward: subprocess.Popen[bytes] | None = None
    options: tuple[str, ...] = ()
    """Of `helm`, beside those of `ci/kind-values.yaml`."""

    def __enter__(self) -> Installation:
        self.seconds = self.kubernetes.install(self.namespace, "--set", "test.job=false", *self.options)
        command = f"kubectl --namespace {self.namespace} port-forward service/epochal-server {self.port}:8700"
        self.forward = subprocess.Popen(
            ["bash", "-c", f"while sleep 0.2; do {command}; done"],
            env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        data = self.kubernetes.get(self.namespace, "secret/epochal-tokens")["data"]
        self.client = Client(f"http://127.0.0.1:{self.port}", base64.b64decode(data["admin"]).decode())
        return self

    def __exit__(self, *_: object) -> None:
        assert self.forward is not None
        os.killpg(self.forward.pid, signal.SIGTERM)
        self.forward.wait()
        self.client.close()

    def asked(self, ask: Callable[[], Any]) -> Any:
        """The answer, also where the server is away for a while."""

        def answer() -> list[Any]:
            with suppress(EpochalError):
                return [ask()]
            return []

        return until(answer, "the server answers")[0]

    def submitted(self, *changes: str) -> str:
        known = ("train.validate_every=300steps", f"train.steps={STEPS}", "env.SLOW_WHILE=/tmp", *changes)
        return str(self.asked(lambda: self.client.submit(SLOW_JOB, known, key=f"{time.time()}")).id)

    def ended(self, job_id: str) -> Any:
        return until(
            lambda: (now := self.asked(lambda: self.client.job(job_id))).state.is_terminal and now, "its end", 600
        )

    def curve(self, run_id: str | None) -> tuple[str, Curve]:
        """How its run stands in MLflow, and its loss by step, doubles included."""
        command = ("exec", "deployment/epochal-server", "--", "python", "-c", HISTORY, str(run_id))
        status, points = json.loads(self.kubernetes.kubectl("--namespace", self.namespace, *command))
        return status, [(step, value) for step, value in points]

    def until_step(self, job_id: str, step: int) -> None:
        until(
            lambda: (self.asked(lambda: self.client.job(job_id)).progress or {}).get("step", 0) >= step, f"step {step}"
        )

    def pods(self, labels: str) -> list[dict[str, Any]]:
        found = self.kubernetes.get(self.namespace, "pods", "--selector", labels)["items"]
        return [
            pod for pod in found if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]
