"""Tests on a real cluster: the one of ``KUBECONFIG``, whose nodes have (or can pull) the image ``EPOCHAL_IMAGE``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

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
    with kubernetes.new_namespace() as name:
        yield name


@pytest.fixture(scope="module")
def other_namespace(kubernetes: Kubernetes) -> Iterator[str]:
    with kubernetes.new_namespace() as name:
        yield name
