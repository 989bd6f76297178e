"""A release of the chart as its administrator sees it from outside, also while its parts break and come back."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from epochal.client.client import Client
from epochal.errors import EpochalError
from epochal.ledger.states import JobState
from epochal.urls import free_port
from kubernetes_cluster import ROOT, Kubernetes, environment, run
from polling import until

SLOW_JOB = ROOT / "tests" / "faults" / "slow_job" / "job.yaml"
QUICKSTART = ROOT / "jobs" / "quickstart.yaml"
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
    """``with Installation(kubernetes, namespace) as installation: installation.submitted()``."""

    kubernetes: Kubernetes
    namespace: str
    options: tuple[str, ...] = ()
    """Of `helm`, beside those of `ci/kind-values.yaml`."""
    chart: Path | None = None
    """Another than this repository's."""
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        mlflow_port = free_port()
        self.options += ("--set", f"mlflow.page=http://127.0.0.1:{mlflow_port}")
        self.seconds = self.install()
        server, mlflow = (
            self._open.enter_context(_always_forwarded(self.namespace, f"service/epochal-{name}", ports))
            for name, ports in (("server", f"{free_port()}:8700"), ("mlflow", f"{mlflow_port}:5000"))
        )
        self.variables = {
            "EPOCHAL_SERVER": server,
            "EPOCHAL_TOKEN": self.secret("epochal-tokens", "admin"),
            "MLFLOW_TRACKING_URI": mlflow,
            "MLFLOW_TRACKING_USERNAME": self.secret("epochal-mlflow", "username"),
            "MLFLOW_TRACKING_PASSWORD": self.secret("epochal-mlflow", "password"),
        }
        self.client = self._open.enter_context(Client(server, self.variables["EPOCHAL_TOKEN"]))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def install(self, *options: str) -> float:
        """As it is, with more options of `helm`; the seconds until all of it is ready."""
        return self.kubernetes.install(self.namespace, *self.options, *options, chart=self.chart)

    def uninstall(self) -> None:
        self.kubernetes.helm("uninstall", "epochal", "--namespace", self.namespace, "--wait", "--timeout", "5m")

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.kubernetes.kubectl("--namespace", self.namespace, *arguments, stdin=stdin)

    def secret(self, name: str, key: str) -> str:
        return base64.b64decode(self.kubernetes.get(self.namespace, "secret", name)["data"][key]).decode()

    def epochal(self, *arguments: str) -> str:
        """What the command prints, as its administrator types it."""
        return run("epochal", *arguments, variables=self.variables)

    @property
    def jobs(self) -> set[str]:
        """The ids of all."""
        return {job.id for job in self.asked(self.client.jobs)}

    def asked(self, ask: Callable[[], Any]) -> Any:
        """The answer, also where the server is away for a while."""

        def answer() -> list[Any]:
            with suppress(EpochalError):
                return [ask()]
            return []

        return until(answer, "the server answers")[0]

    def submitted(self, *changes: str) -> str:
        """A job of ``STEPS`` steps that last as long as ``env.SLOW_SECONDS`` says."""
        known = ("train.validate_every=300steps", f"train.steps={STEPS}", "env.SLOW_WHILE=/tmp", *changes)
        return str(self.asked(lambda: self.client.submit(SLOW_JOB, known, key=f"{time.time()}")).id)

    def begun(self, *changes: str) -> str:
        """The quickstart for a minute, which trains already."""
        job = self.asked(lambda: self.client.submit(QUICKSTART, ("train.epochs=60", *changes), key=f"{time.time()}"))
        until(lambda: self.asked(lambda: self.client.job(job.id)).state is JobState.RUNNING, f"{job.id} trains")
        return str(job.id)

    def ended(self, job_id: str) -> Any:
        return until(
            lambda: (now := self.asked(lambda: self.client.job(job_id))).state.is_terminal and now, "its end", 600
        )

    def succeeded(self, job_id: str) -> Any:
        """The job, once it is also in MLflow what it is here."""
        job = self.ended(job_id)
        assert job.state is JobState.SUCCEEDED, f"{job.reason}: {job.message}"
        return until(lambda: self._recorded(job_id), "MLflow has its end")

    def _recorded(self, job_id: str) -> Any:
        """The job, where its run has ended too: that is made afterwards where MLflow was not there in time."""
        job = self.asked(lambda: self.client.job(job_id))
        with suppress(AssertionError):  # MLflow may be the one that was just lost
            run = json.loads(self.epochal("runs", "show", job.run_id, "-o", "json")) if job.run_id else {}
            return job if run.get("status") == "FINISHED" else None

    def curve(self, run_id: str) -> tuple[str, Curve]:
        """How its run stands in MLflow, and its loss by step, doubles included."""
        status, points = json.loads(
            self.kubectl("exec", "deployment/epochal-server", "--", "python", "-c", HISTORY, run_id)
        )
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


@contextmanager
def _always_forwarded(namespace: str, what: str, ports: str) -> Iterator[str]:
    """The URL by which this machine reaches a service; forwarded anew once the pod behind it is another one."""
    command = f"while sleep 0.5; do kubectl --namespace {namespace} port-forward {what} {ports}; done"
    process = subprocess.Popen(
        ["bash", "-c", command],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{ports.partition(':')[0]}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
