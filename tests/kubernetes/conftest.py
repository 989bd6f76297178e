"""Tests on a real cluster: the one of ``KUBECONFIG``, whose nodes have (or can pull) the image ``EPOCHAL_IMAGE``."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kubernetes_cluster import Kubernetes

IMAGE = os.environ.get("EPOCHAL_IMAGE", "")
"""Read before the environment is cleaned."""


@pytest.fixture(scope="session")
def kubernetes() -> Kubernetes:
    if not IMAGE or "KUBECONFIG" not in os.environ:
        pytest.skip("needs a cluster: KUBECONFIG, and EPOCHAL_IMAGE, which its nodes have")
    if missing := [name for name in ("kubectl", "helm") if shutil.which(name) is None]:
        pytest.skip(f"needs {' and '.join(missing)}")
    return Kubernetes(IMAGE)


@pytest.fixture(scope="module")
def namespace(kubernetes: Kubernetes) -> Iterator[str]:
    with _new_namespace(kubernetes) as name:
        yield name


@pytest.fixture(scope="module")
def other_namespace(kubernetes: Kubernetes) -> Iterator[str]:
    with _new_namespace(kubernetes) as name:
        yield name


@contextmanager
def _new_namespace(kubernetes: Kubernetes) -> Iterator[str]:
    """It takes restricted pods alone, and goes with all that is in it."""
    name = f"epochal-test-{secrets.token_hex(3)}"
    kubernetes.kubectl("create", "namespace", name)
    kubernetes.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    try:
        yield name
    finally:
        kubernetes.kubectl("delete", "namespace", name, "--wait=false")
