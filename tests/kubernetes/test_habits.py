"""What goes wrong at an installation by somebody's habits: within a minute `epochal cluster status` names it, and says
what to do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping

import pytest

from kubernetes_cluster import CHART, Kubernetes, environment
from polling import until

TOLD_SECONDS = 60.0
DATABASES = ("database.ledgerUrl=postgresql://epochal@nowhere/ours", "database.mlflowUrl=postgresql://mlflow@nowhere/x")
MISTAKES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "database": (
        (*DATABASES, "database.existingSecret=passwords"),
        ("epochal-server-", "cannot use the ledger postgresql://epochal@nowhere/ours", "is the database running"),
    ),
    "mlflow": (
        (*DATABASES, "database.existingSecret=passwords"),
        ("epochal-mlflow-", "cannot use MLflow's database", "failed to resolve host 'nowhere'"),
    ),
    "secret": (("database.existingSecret=nowhere",), ('secret "nowhere" not found', "make it, or name one")),
    "tokens": (("tokens.existingSecret=nowhere",), ('secret "nowhere" not found', "make it, or name one")),
    "image": (
        ("image.name=localhost/epochal:nowhere",),
        ("the image localhost/epochal:nowhere cannot be pulled", "may the nodes pull it"),
    ),
    "volume": (
        ("storage.existingClaim=nowhere",),
        ('persistentvolumeclaim "nowhere" not found', "make it, or name one"),
    ),
    "class": (
        ("storage.storageClass=nowhere", "fullnameOverride=other"),
        ("unbound immediate PersistentVolumeClaims", "`kubectl describe pvc` says why"),
    ),
    "key": (
        ("tokens.existingSecret=passwords",),
        ("epochal-server-", "non-existent secret key: admin", "the Secret has to have that key as well"),
    ),
    "cpus": (
        ("server.resources.requests.cpu=640",),
        ("epochal-server-", "with less than 640 cpu free", "ask for less, or add a node that has it"),
    ),
    "quota": ((), ("its pod cannot be made: exceeded quota: small", "have it raised, or ask for less")),
}


@pytest.fixture(scope="module", autouse=True)
def _passwords(kubernetes: Kubernetes, namespace: str) -> None:
    literals = [f"--from-literal={name}-password=of-nobody" for name in ("ledger", "mlflow")]
    kubernetes.kubectl("--namespace", namespace, "create", "secret", "generic", "passwords", *literals)


@pytest.fixture
def values(request: pytest.FixtureRequest, kubernetes: Kubernetes, namespace: str) -> Iterator[tuple[str, ...]]:
    """Installed with them; what its hooks do comes after what goes wrong here."""
    where = ("--namespace", namespace)
    is_small = request.param == "quota"
    if is_small:
        kubernetes.kubectl(*where, "create", "quota", "small", "--hard=pods=0")
    values, told = MISTAKES[request.param]
    sets = [part for value in (f"image.name={kubernetes.image}", *values) for part in ("--set", value)]
    kind = ("--values", str(CHART / "ci" / "kind-values.yaml"), "--set", "backup.enabled=false")
    kubernetes.helm("install", "epochal", str(CHART), *where, "--no-hooks", *kind, *sets)
    try:
        yield told
    finally:
        kubernetes.helm("uninstall", "epochal", *where, "--no-hooks", "--wait")
        if is_small:
            kubernetes.kubectl(*where, "delete", "quota", "small")


@pytest.mark.parametrize("values", MISTAKES, indirect=True)
def test_what_is_wrong_is_told(namespace: str, values: tuple[str, ...]) -> None:
    def told() -> bool:
        command = ["epochal", "cluster", "status", "epochal", "--namespace", namespace]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
        assert done.returncode == 3, "its cluster is made only once all of it is ready"
        said[:] = done.stderr.splitlines()
        return any(all(part in line for part in values) for line in said)

    said: list[str] = []
    try:
        until(told, " ... ".join(values), TOLD_SECONDS)
    finally:
        print(json.dumps(said, indent=1))
