"""Seconds from submit to the first optimizer step on Kubernetes: the chart's cluster beside KubeRay's ``RayJob``.

Needs a cluster (``KUBECONFIG``) with KubeRay, whose nodes have the image ``EPOCHAL_IMAGE``. The chart is installed into
a namespace of its own; the peers run there too, on the same nodes, storage and image; what Ray needs to keep its own
processes they have too.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from contender import PEERS
from measure import Measurement, Promise, Section, interleave, progress
from steps import INSTRUMENT, wait_for

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from installation import QUICKSTART, Installation
from kubernetes_cluster import CHART, Kubernetes, run

FOLDER = "/var/lib/epochal/datasets/benchmark"
"""Of the storage root, where every pod sees it."""
STOPWATCH = {"PYTHONPATH": FOLDER, "BENCHMARK_STEPS": f"{FOLDER}/steps"}
PEER = "peer"
INSTALLED = "helm install"
_SECONDS = 400.0

_FIRST_RECORDED = """
import sys, mlflow
print(min(one.timestamp for one in mlflow.MlflowClient().get_metric_history(sys.argv[1], "train/loss")) / 1000)
"""


def measure(rounds: int, quick: bool) -> Section:
    kubernetes = Kubernetes(os.environ["EPOCHAL_IMAGE"])
    began = time.time()
    with kubernetes.new_namespace() as namespace, Installation(kubernetes, namespace, _options()) as installed:
        job = installed.succeeded(installed.client.submit(QUICKSTART).id)
        told = _in_server(installed, f"python -c '{_FIRST_RECORDED}' {job.run_id}")
        from_nothing = float(told) - began
        progress(f"helm install took {installed.seconds:.0f} s, and {from_nothing:.0f} s to the first step")
        _prepare(installed)
        ways: dict[str, Measurement] = {"epochal submit": lambda: {"epochal submit": _submitted(installed)}}
        with _peer_cluster(installed) as cluster:
            running = {"clusterSelector": {"ray.io/cluster": PEER}}
            ways["RayJob"] = lambda: {"RayJob": _ray_job(installed, running)}
            if not quick:
                own = {"rayClusterSpec": cluster["spec"], "shutdownAfterJobFinishes": True}
                ways["RayJob with its own cluster"] = lambda: {"RayJob with its own cluster": _ray_job(installed, own)}
            raw = interleave(rounds, ways)
        installed.uninstall()
    promises = [
        Promise("from `helm install`, nothing there", INSTALLED),
        Promise("beside a RayJob on a running cluster", "epochal submit", "RayJob", 0.02),
    ]
    if not quick:
        promises.append(
            Promise("beside one with a cluster of its own", "epochal submit", "RayJob with its own cluster", 0.005)
        )
    raw = {INSTALLED: [from_nothing], **raw}
    return Section("kubernetes", "seconds from submit to the first optimizer step", raw, promises, NOTES)


NOTES = [
    "Two workers on two nodes, which came later than the agent. The peer: Ray Train on a cluster of the same pods,\n"
    "which has Ray's dashboard besides and asks for no token; KubeRay submits it over HTTP, without a pod for that."
]


def _options() -> tuple[str, ...]:
    values = yaml.safe_load((CHART / "ci" / "kind-values.yaml").read_text(encoding="utf-8"))
    groups = [group | {"env": STOPWATCH} for group in values["cluster"]["groups"]]
    return "--set-json", f"cluster.groups={json.dumps(groups)}", "--set", "backup.enabled=false"


def _submitted(installed: Installation) -> float:
    """Of a job that comes five seconds after another."""
    time.sleep(5)
    began = time.time()
    job = installed.client.submit(QUICKSTART)
    installed.succeeded(job.id)
    return _first_step(installed, began) - began


def _ray_job(installed: Installation, where: Mapping[str, Any]) -> float:
    name = f"peer-{time.time_ns() // 1_000_000}"
    options = json.dumps({"options": {"steps": 30}, "trainings": 1})
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": f"python {FOLDER}/ray_train.py '{options}'",
            "submissionMode": "HTTPMode",
            "runtimeEnvYAML": json.dumps({"env_vars": STOPWATCH | {"TMPDIR": "/tmp"}}),
            **where,
        },
    }
    began = time.time()
    installed.kubectl("apply", "--filename", "-", stdin=json.dumps(job))
    try:
        until = ("--for=jsonpath={.status.jobStatus}=SUCCEEDED", f"--timeout={_SECONDS:g}s")
        command = ("kubectl", "--namespace", installed.namespace, "wait", *until, f"rayjob/{name}")
        run(*command, seconds=_SECONDS + 60)
        return _first_step(installed, began) - began
    finally:
        installed.kubectl("delete", "rayjob", name)


def _first_step(installed: Installation, after: float) -> float:
    """When the first optimizer step was done (Unix seconds) of those after ``after``; all clocks are of these nodes."""
    noted = _in_server(installed, f"cat {FOLDER}/steps/*")
    taken = [float(line.split()[1]) for line in noted.splitlines() if line[:1].isdigit()]
    return min(at for at in taken if at > after)


def _prepare(installed: Installation) -> None:
    """Put the stopwatch and the peer's script where every pod sees them; then wait for new nodes, warm and with it."""
    _in_server(installed, f"mkdir -p {FOLDER}/steps")
    for file in (INSTRUMENT / "sitecustomize.py", PEERS / "ray_train.py", PEERS / "digits.py"):
        _in_server(installed, f"cat > {FOLDER}/{file.name}", stdin=file.read_text())
    before = {node.id for agent in installed.client.agents() for node in agent.nodes}
    installed.kubectl("delete", "pod", "--selector", "epochal.io/role=worker")

    def warm() -> bool | None:
        (agent,) = installed.client.agents()
        fresh = [node for node in agent.nodes if node.id not in before and node.total.get("CPU")]
        return (len(fresh) == 2 and agent.detail["warm"] >= 2) or None

    wait_for("warm workers on new nodes", warm, lambda: True, _SECONDS)


@contextmanager
def _peer_cluster(installed: Installation) -> Iterator[dict[str, Any]]:
    """A RayCluster of the pods that the release's has, ready."""
    peer = installed.kubernetes.get(installed.namespace, "raycluster/epochal")
    peer = {"apiVersion": peer["apiVersion"], "kind": peer["kind"], "metadata": {"name": PEER}, "spec": peer["spec"]}
    peer["spec"]["authOptions"] = {"mode": "disabled"}
    head = peer["spec"]["headGroupSpec"]
    # KubeRay submits the job to the dashboard, and finds its port by this name.
    head["rayStartParams"] |= {"include-dashboard": "true", "dashboard-host": "0.0.0.0"}
    head["template"]["spec"]["containers"][0]["ports"].append({"name": "dashboard", "containerPort": 8265})
    for group in (head, *peer["spec"]["workerGroupSpecs"]):
        template = group["template"]
        template["metadata"] = {}  # no policy of ours is about them
        for container in template["spec"]["containers"]:
            container["resources"]["requests"]["cpu"] = "100m"  # both clusters are there at once
    own = copy.deepcopy(peer)
    del own["spec"]["upgradeStrategy"]  # KubeRay makes no cluster of a RayJob with it
    installed.kubectl("apply", "--filename", "-", stdin=json.dumps(peer))
    try:
        until = ("--for=condition=RayClusterProvisioned", f"--timeout={_SECONDS:g}s")
        run("kubectl", "--namespace", installed.namespace, "wait", *until, f"raycluster/{PEER}", seconds=_SECONDS + 60)
        yield own
    finally:
        installed.kubectl("delete", "raycluster", PEER)


def _in_server(installed: Installation, script: str, stdin: str | None = None) -> str:
    return installed.kubectl(
        "exec", "--stdin", "deployment/epochal-server", "--", "sh", "-c", script, stdin=stdin or ""
    )
