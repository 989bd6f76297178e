"""A real cluster, by `kubectl` and `helm` as a person types them."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "epochal"
_INSTALL_SECONDS = 1200


@dataclass(frozen=True)
class Kubernetes:
    """``image``: what its nodes have of Epochal."""

    image: str

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return run("kubectl", *arguments, stdin=stdin)

    def get(self, namespace: str, kind: str, *arguments: str) -> Any:
        return json.loads(self.kubectl("--namespace", namespace, "get", kind, "--output", "json", *arguments))

    def helm(self, *arguments: str) -> str:
        return run("helm", *arguments, seconds=_INSTALL_SECONDS)

    def install(self, namespace: str, *options: str, chart: Path | None = None) -> float:
        """A chart with its `ci/kind-values.yaml`, new or over what is there; the seconds until all of it is ready."""
        began, chart = time.monotonic(), chart or CHART
        values = ("--values", str(chart / "ci" / "kind-values.yaml"), "--set", f"image.name={self.image}")
        where = ("--namespace", namespace, "--wait", "--timeout", f"{_INSTALL_SECONDS:g}s")
        self.helm("upgrade", "--install", "epochal", str(chart), *values, *where, *options)
        return time.monotonic() - began

    @contextmanager
    def new_namespace(self) -> Iterator[str]:
        """It takes restricted pods alone, and goes with all that is in it."""
        name = f"epochal-test-{secrets.token_hex(3)}"
        self.kubectl("create", "namespace", name)
        self.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")

    def python(self, namespace: str, name: str, script: str, labels: str = "") -> str:
        """What a pod prints that runs the script, and may do no more than anybody's."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": dict(one.split("=") for one in labels.split(",") if one)},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 1000,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "python",
                        "image": self.image,
                        "command": ["python", "-c", script],
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    }
                ],
            },
        }
        return self.ran(namespace, pod)

    def ran(self, namespace: str, pod: Any) -> str:
        """What the pod prints, which goes once it has ended well."""
        name = pod["metadata"]["name"]
        self.kubectl("--namespace", namespace, "apply", "--filename", "-", stdin=json.dumps(pod))
        try:
            until = ("--for=jsonpath={.status.phase}=Succeeded", "--timeout=180s")
            try:
                self.kubectl("--namespace", namespace, "wait", *until, f"pod/{name}")
            except AssertionError as error:
                said = self.kubectl("--namespace", namespace, "logs", name, "--tail=20")
                raise AssertionError(f"{error}\n{said}") from None
            return self.kubectl("--namespace", namespace, "logs", name)
        finally:
            self.kubectl("--namespace", namespace, "delete", "pod", name, "--wait=false")


@contextmanager
def forwarded(namespace: str, what: str, port: int) -> Iterator[str]:
    """The URL by which this machine reaches a service or pod, for as long as the ``with`` block lasts."""
    command = ["kubectl", "--namespace", namespace, "port-forward", what, f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            yield f"http://{told.split()[2]}"
        finally:
            process.terminate()


def run(
    *command: str, stdin: str | None = None, seconds: float = 300, variables: Mapping[str, str] | None = None
) -> str:
    """What it prints.

    Raises:
        AssertionError: it failed; with all that it said.
    """
    env = {**environment(), **(variables or {})}
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False, env=env)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def environment() -> dict[str, str]:
    """`epochal` is the one of these tests."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
