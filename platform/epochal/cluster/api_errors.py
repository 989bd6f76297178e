"""What the API server of Kubernetes says when it refuses something, as errors of ours. A pure function."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from epochal.errors import ConflictError, EpochalError, ForbiddenError, NotFoundError, UnreachableError, UsageError

KUBERAY = (
    "install KubeRay's operator, 1.6 or newer: `helm install kuberay-operator kuberay-operator --repo"
    " https://ray-project.github.io/kuberay-helm/`"
)

_CONFLICT = re.compile(r'conflict with "([^"]+)"')


def refusal(status: int, document: Mapping[str, Any], path: str, server: str) -> EpochalError:
    """The error for an answer with this HTTP ``status`` and ``document`` (a ``Status`` of Kubernetes, or empty)."""
    message = str(document.get("message") or f"HTTP {status}")
    if status == 404:
        return _not_found(document, message, path, server)
    if status == 409:
        return _conflict(document, message)
    if status == 403 or "denied the request" in message:
        return _forbidden(message)
    if status in (400, 422):
        return UsageError(f"Kubernetes does not take it: {message}", "change that in the cluster spec")
    what, hint = f"{server} refuses {path}", "`kubectl version` shows what it is"
    if status in (429, 500, 502, 503, 504):
        what, hint = f"{server} is too busy, or not ready", "try again in a moment"
    return UnreachableError(f"{what}: {message}", hint)


def owners(error: ConflictError) -> frozenset[str]:
    """Who has set the fields that an apply conflicts with; none where it is about something else."""
    return frozenset(_CONFLICT.findall(error.message))


def _not_found(document: Mapping[str, Any], message: str, path: str, server: str) -> EpochalError:
    details = document.get("details") or {}
    kind, name = str(details.get("kind", "")), str(details.get("name", ""))
    if kind == "namespaces" and f"/namespaces/{name}/" in path:
        return NotFoundError("namespace", name, hint=f"`kubectl create namespace {name}`, or name another one with -n")
    if name:
        return NotFoundError(kind.removesuffix("s") or "object", name, hint=message)
    if "/ray.io/" in path:
        return NotFoundError("kind", "RayCluster", hint=f"Kubernetes does not know it: {KUBERAY}")
    return UnreachableError(f"{server} is no API server of Kubernetes, or an old one: {message} ({path})")


def _conflict(document: Mapping[str, Any], message: str) -> EpochalError:
    causes = [cause for cause in _causes(document) if cause.get("reason") == "FieldManagerConflict"]
    if not causes:
        return ConflictError(message, "somebody changed it at the same time: try again")
    fields = "; ".join(f"{cause.get('field')}: {cause.get('message')}" for cause in causes)
    hint = "--force takes these fields over; or have whoever set them leave them alone"
    return ConflictError(f"fields of it are set by somebody else: {fields}", hint)


def _forbidden(message: str) -> EpochalError:
    if "exceeded quota" in message:
        return ForbiddenError(message, "raise the ResourceQuota of the namespace, or ask for less in the cluster spec")
    if "denied the request" in message or "violates PodSecurity" in message:
        return ForbiddenError(message, "that is a policy of this Kubernetes cluster: ask who looks after it")
    if "being terminated" in message:
        return ForbiddenError(message, "wait until it is gone, and create it again; or name another one with -n")
    hint = "`kubectl auth can-i --list -n NAMESPACE` shows what is allowed; the how-to on Kubernetes what is needed"
    return ForbiddenError(message, hint)


def _causes(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from (document.get("details") or {}).get("causes") or ()
