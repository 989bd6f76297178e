"""Seconds from submit to the first optimizer step on Kubernetes: the chart's cluster beside KubeRay's ``RayJob``.

Needs a cluster (``KUBECONFIG``) with KubeRay, whose nodes have the image ``EPOCHAL_IMAGE``, and a release of the chart
in the namespace ``EPOCHAL_NAMESPACE`` whose worker groups have the ``env`` in ``STOPWATCH``. The peers run in the same
namespace, on the same nodes, storage and image; what Ray needs to keep its own processes they have too.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contender import PEERS
from measure import Measurement, Promise, Section, interleave
from steps import INSTRUMENT, wait_for

from epochal.client.client import Client
from epochal.urls import free_port

FOLDER = "/var/lib/epochal/datasets/benchmark"
STOPWATCH = {"PYTHONPATH": FOLDER, "BENCHMARK_STEPS": f"{FOLDER}/steps"}
"""``--set cluster.groups[0].env.PYTHONPATH=...`` and the other."""

NAMESPACE = os.environ.get("EPOCHAL_NAMESPACE", "epochal")
JOB = Path(__file__).parents[2] / "jobs" / "quickstart.yaml"
PEER = "peer"
_SECONDS = 600.0


def measure(rounds: int, quick: bool) -> Section:
    _prepare()
    with _client() as client, _peer_cluster() as cluster:
        ways: dict[str, Measurement] = {
            "epochal submit": lambda: {"epochal submit": _submitted(client)},
            "RayJob": lambda: {"RayJob": _ray_job({"clusterSelector": {"ray.io/cluster": PEER}})},
        }
        if not quick:
            ways["RayJob with its own cluster"] = lambda: {
                "RayJob with its own cluster": _ray_job(
                    {"rayClusterSpec": cluster["spec"], "shutdownAfterJobFinishes": True}
                )
            }
        raw = interleave(rounds, ways)
    promises = [Promise("beside a RayJob on a running cluster", "epochal submit", "RayJob", 0.02)]
    if not quick:
        promises.append(
            Promise("beside one with a cluster of its own", "epochal submit", "RayJob with its own cluster", 0.005)
        )
    return Section("kubernetes", "seconds from submit to the first optimizer step", raw, promises, NOTES)


NOTES = [
    "Two workers on two nodes. The peer: Ray Train on a cluster of the same pods, which has\n"
    "Ray's dashboard besides and asks for no token; KubeRay submits it over HTTP, without a pod for that."
]


def _submitted(client: Client) -> float:
    """Of a job that comes five seconds after another."""
    time.sleep(5)
    began = time.time()
    job = client.submit(JOB).job
    first = _first_step(began)
    client.wait(job.id)
    return first - began


def _ray_job(where: Mapping[str, Any]) -> float:
    name = f"peer-{time.time_ns() // 1_000_000}"
    options = json.dumps({"options": {"steps": 30}, "trainings": 1})
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": f"python {FOLDER}/ray_train.py '{options}'",
            "submissionMode": "HTTPMode",
            "runtimeEnvYAML": json.dumps({"env_vars": STOPWATCH}),
            **where,
        },
    }
    began = time.time()
    _kubectl("apply", "--filename", "-", stdin=json.dumps(job))
    try:
        first = _first_step(began)
        until = ("--for=jsonpath={.status.jobStatus}=SUCCEEDED", f"--timeout={_SECONDS:g}s")
        _kubectl("wait", *until, f"rayjob/{name}")
    finally:
        _kubectl("delete", "rayjob", name)
    return first - began


def _first_step(after: float) -> float:
    """When the first optimizer step was done (Unix seconds) of those after ``after``; all clocks are of these nodes."""

    def look() -> float | None:
        taken = [float(line.split()[1]) for line in _in_server(f"cat {FOLDER}/steps/* 2>/dev/null || true").splitlines()
                 if line[:1].isdigit()]  # fmt: skip
        return min((at for at in taken if at > after), default=None)

    return wait_for("first step", look, lambda: True, _SECONDS)


def _prepare() -> None:
    """Put the stopwatch and the peer's script where every pod sees them."""
    _in_server(f"rm -rf {FOLDER} && mkdir -p {FOLDER}/steps")
    for file in (INSTRUMENT / "sitecustomize.py", PEERS / "ray_train.py", PEERS / "digits.py"):
        _in_server(f"cat > {FOLDER}/{file.name}", stdin=file.read_text())


@contextmanager
def _peer_cluster() -> Iterator[dict[str, Any]]:
    """A RayCluster of the pods that the release's has, ready."""
    peer = json.loads(_kubectl("get", "raycluster", "--output", "json"))["items"][0]
    peer = {"apiVersion": peer["apiVersion"], "kind": peer["kind"], "metadata": {"name": PEER}, "spec": peer["spec"]}
    peer["spec"]["authOptions"] = {"mode": "disabled"}
    peer["spec"]["headGroupSpec"]["rayStartParams"]["include-dashboard"] = "true"
    for group in (peer["spec"]["headGroupSpec"], *peer["spec"]["workerGroupSpecs"]):
        template = group["template"]
        template["metadata"] = {}  # no policy of ours is about them
        for container in template["spec"]["containers"]:
            container["resources"]["requests"]["cpu"] = "100m"  # both clusters are there at once
    own = copy.deepcopy(peer)
    _kubectl("apply", "--filename", "-", stdin=json.dumps(peer))
    try:
        _kubectl("wait", "--for=condition=RayClusterProvisioned", f"--timeout={_SECONDS:g}s", f"raycluster/{PEER}")
        yield own
    finally:
        _kubectl("delete", "raycluster", PEER)


@contextmanager
def _client() -> Iterator[Client]:
    port = free_port()
    command = ["kubectl", "--namespace", NAMESPACE, "port-forward", "service/epochal-server", f"{port}:8700"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout is not None
            forward.stdout.readline()  # it listens
            token = json.loads(_kubectl("get", "secret", "epochal-tokens", "--output", "json"))["data"]["admin"]
            with Client(f"http://127.0.0.1:{port}", base64.b64decode(token).decode()) as client:
                yield client
        finally:
            forward.terminate()


def _in_server(script: str, stdin: str | None = None) -> str:
    return _kubectl("exec", "--stdin", "deployment/epochal-server", "--", "sh", "-c", script, stdin=stdin or "")


def _kubectl(*arguments: str, stdin: str | None = None) -> str:
    command: Sequence[str] = ("kubectl", "--namespace", NAMESPACE, *arguments)
    return subprocess.run(command, input=stdin, check=True, stdout=subprocess.PIPE, text=True).stdout
