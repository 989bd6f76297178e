"""A real cluster, by `kubectl` and `helm` as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
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

    def install(self, namespace: str, *options: str, release: str = "epochal") -> float:
        """The chart with `ci/kind-values.yaml`, new or over what is there; the seconds until all of it is ready."""
        began = time.monotonic()
        values = ("--values", str(CHART / "ci" / "kind-values.yaml"), "--set", f"image.name={self.image}")
        where = ("--namespace", namespace, "--wait", "--timeout", f"{_INSTALL_SECONDS}s")
        self.helm("upgrade", "--install", release, str(CHART), *values, *where, *options)
        return time.monotonic() - began

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
        self.kubectl("--namespace", namespace, "apply", "--filename", "-", stdin=json.dumps(pod))
        try:
            until = ("--for=jsonpath={.status.phase}=Succeeded", "--timeout=180s")
            self.kubectl("--namespace", namespace, "wait", *until, f"pod/{name}")
            return self.kubectl("--namespace", namespace, "logs", name)
        finally:
            self.kubectl("--namespace", namespace, "delete", "pod", name, "--wait=false")


def run(*command: str, stdin: str | None = None, seconds: float = 300) -> str:
    """What it prints.

    Raises:
        AssertionError: it failed; with all that it said.
    """
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False, env=environment()
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def environment() -> dict[str, str]:
    """`epochal` is the one of these tests."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
