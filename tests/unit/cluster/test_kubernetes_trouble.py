"""What the API server refuses, or does not answer: an error of ours that names the thing and the remedy."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import Configuration

from epochal.cluster.api import Api
from epochal.cluster.kinds import path_to
from epochal.errors import (
    AuthError,
    ConflictError,
    EpochalError,
    ForbiddenError,
    NotFoundError,
    UnreachableError,
    UsageError,
)
from kubernetes_api import KubernetesApi, status

PODS = path_to("Pod", "training")
RAY = path_to("RayCluster", "training", "pool")


@pytest.fixture
def server() -> Iterator[KubernetesApi]:
    with KubernetesApi() as running:
        yield running


def client(url: str, slept: list[float] | None = None) -> Api:
    """A client whose clock is moved by its pauses alone."""
    pauses = [] if slept is None else slept
    return Api(Configuration(host=url), clock=lambda: sum(pauses), sleep=pauses.append)


@pytest.mark.parametrize(
    ("code", "document", "kind", "told"),
    [
        (401, status(401, "Unauthorized"), AuthError, "does not know who asks"),
        (403, status(403, 'rayclusters.ray.io is forbidden: User "ada" cannot patch'), ForbiddenError, "can-i --list"),
        (403, status(403, 'pods "a" is forbidden: exceeded quota: small'), ForbiddenError, "raise the ResourceQuota"),
        (403, status(403, 'pods "a" is forbidden: violates PodSecurity "restricted"'), ForbiddenError, "is a policy"),
        (403, status(403, "unable to create: namespace x is being terminated"), ForbiddenError, "until it is gone"),
        (400, status(400, 'admission webhook "w" denied the request: no'), ForbiddenError, "is a policy"),
        (
            404,
            status(404, 'namespaces "training" not found', details={"kind": "namespaces", "name": "training"}),
            NotFoundError,
            "kubectl create namespace training",
        ),
        (404, status(404, "the server could not find the requested resource"), NotFoundError, "helm install kuberay"),
        (409, status(409, "the object has been modified"), ConflictError, "try again"),
        (422, status(422, "spec.groups: Invalid value"), UsageError, "Invalid value"),
        (418, {"message": "teapot"}, UnreachableError, "teapot"),
    ],
    ids=["401", "403", "quota", "psa", "ending", "webhook", "namespace", "crd", "409", "422", "other"],
)
def test_refusals(server: KubernetesApi, code: int, document: Any, kind: type[EpochalError], told: str) -> None:
    server.trouble.append((code, document, {}))
    with pytest.raises(kind) as raised:
        client(server.url).apply(RAY, {"metadata": {"name": "pool"}})
    assert type(raised.value) is kind
    assert told in f"{raised.value.message} {raised.value.hint}"
    assert raised.value.hint
    assert len(server.requests) == 1


def test_a_conflict_names_the_field_and_who_has_set_it(server: KubernetesApi) -> None:
    cause = {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl-edit"', "field": ".spec.replicas"}
    server.trouble.append((409, status(409, "Apply failed with 1 conflict", details={"causes": [cause]}), {}))
    with pytest.raises(ConflictError, match=r"spec\.replicas.*kubectl-edit") as raised:
        client(server.url).apply(RAY, {"metadata": {"name": "pool"}})
    assert "--force" in raised.value.hint


@pytest.mark.parametrize(("code", "waits"), [(429, "7"), (503, "")], ids=["429", "503"])
def test_a_busy_server_is_asked_again_when_it_says(server: KubernetesApi, code: int, waits: str) -> None:
    slept: list[float] = []
    headers = {"Retry-After": waits} if waits else {}
    server.trouble.extend([(code, status(code, "busy"), headers)] * 2)
    assert client(server.url, slept).list(PODS) == []
    assert len(server.requests) == 3
    assert slept == ([7.0, 7.0] if waits else [0.1, 0.2])


def test_a_server_that_stays_busy_is_given_up(server: KubernetesApi) -> None:
    slept: list[float] = []
    server.trouble.extend([(429, status(429, "too many requests"), {"Retry-After": "20"})] * 3)
    with pytest.raises(UnreachableError, match="too many requests"):
        client(server.url, slept).list(PODS)
    assert slept == [20.0]


def test_a_list_is_read_page_by_page(server: KubernetesApi) -> None:
    for name in "abcde":
        server.put(f"{PODS}/{name}", {"metadata": {"name": name}})
    server.page = 2
    assert [pod["metadata"]["name"] for pod in client(server.url).list(PODS)] == list("abcde")


def test_a_list_whose_rest_has_expired_is_read_anew(server: KubernetesApi) -> None:
    for name in "abc":
        server.put(f"{PODS}/{name}", {"metadata": {"name": name}})
    server.page, api = 2, client(server.url)
    answer, expired = server.answer, iter([True])

    def once(method: str, target: str, body: Any) -> Any:
        if "continue=" in target and next(expired, False):
            return 410, status(410, "the provided continue parameter is too old", reason="Expired"), {}
        return answer(method, target, body)

    server.answer = once  # type: ignore[method-assign]
    assert [pod["metadata"]["name"] for pod in api.list(PODS)] == list("abc")
    server.answer = lambda *_: (  # type: ignore[method-assign]
        (410, status(410, "Expired"), {}) if "continue=" in _[1] else answer(*_)
    )
    with pytest.raises(UnreachableError, match="forgot the list"):
        api.list(PODS)


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(UnreachableError, match=f"{url} does not answer") as raised:
            client(url).list(PODS)
    assert "kubectl cluster-info" in raised.value.hint


def test_no_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epochal.cluster.api._ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="does not answer"):
            client(f"http://127.0.0.1:{silent.getsockname()[1]}").list(PODS)
    assert time.monotonic() - began < 5


def test_what_answers_is_no_api_server(server: KubernetesApi) -> None:
    server.answer = lambda *_: (200, [], {})  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(UnreachableError, match="is no API server of Kubernetes"):
        client(server.url).get(PODS)


def test_no_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(UnreachableError, match="no Kubernetes cluster is configured") as raised:
        Api.connect()
    assert "KUBECONFIG" in raised.value.hint


def test_a_context_that_is_not_there(server: KubernetesApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
    with pytest.raises(NotFoundError, match=r"'too'.*one"):
        Api.connect("too")
    api = Api.connect("one")
    assert (api.server, api.namespace) == (server.url, "training")


def test_a_context_is_named_where_none_is_the_current_one(
    server: KubernetesApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = server.kubeconfig(tmp_path)
    file.write_text(file.read_text().replace("current-context: one\n", ""))
    monkeypatch.setenv("KUBECONFIG", str(file))
    assert Api.connect("one").namespace == "training"
    with pytest.raises(NotFoundError, match=r"'too'.*one"):
        Api.connect("too")
    with pytest.raises(UnreachableError, match="current-context"):
        Api.connect()


def test_a_pod_asks_with_its_service_account(
    server: KubernetesApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, text in (("token", "a-token"), ("namespace", "jobs\n"), ("ca.crt", "certificate")):
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("KUBECONFIG", "")  # as good as none
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr("epochal.cluster.api._SERVICE_ACCOUNT", tmp_path)
    loader = "kubernetes.config.incluster_config"
    monkeypatch.setattr(f"{loader}.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(f"{loader}.SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    api = Api.connect()
    assert (api.server, api.namespace) == ("https://10.0.0.1:443", "jobs")
