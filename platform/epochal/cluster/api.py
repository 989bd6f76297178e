"""The API server of a Kubernetes cluster: JSON in, JSON out, and its refusals as errors of ours."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Self

from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, KubeConfigMerger
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry
from yaml import YAMLError

from epochal.backoff import pause_after
from epochal.cluster.api_errors import refusal
from epochal.cluster.kinds import Manifest
from epochal.errors import AuthError, ConflictError, EpochalError, NotFoundError, UnreachableError, UsageError
from epochal.redaction import said

MANAGER = "epochal"
"""The field manager of what a cluster spec says."""

_ANSWER_SECONDS = 15.0
_PATIENCE_SECONDS = 30.0
"""For so long a server that is busy, or says that it will be back, is asked again."""
_PAGE = 500
_BUSY = frozenset({429, 500, 502, 503, 504})
_GONE = 410
_UNREADABLE = (ConfigException, OSError, ValueError, TypeError, AttributeError, YAMLError)
"""What the client raises of a kubeconfig: its own for what is missing, Python's and YAML's for what is none."""
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Api:
    """Asks the API server that a kubeconfig, or the pod that this runs in, names. Threads may share one.

    Raises:
        UnreachableError: no answer, or none within the time; nothing says where the server is.
        AuthError, ForbiddenError: it does not know who asks, or does not allow it.
        NotFoundError: no such object, namespace, or kind of object.
        ConflictError: the object is another's, or has changed meanwhile.
        UsageError: it does not take the object as it is.
    """

    def __init__(
        self,
        configuration: Configuration,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        configuration.retries = Retry(
            total=2, connect=0, read=0, status=0, other=0, redirect=2, respect_retry_after_header=False
        )
        self._client = ApiClient(configuration)
        self._clock = clock
        self._sleep = sleep
        self.server = str(configuration.host)
        self.namespace = "default"
        """Where nobody names another."""

    @classmethod
    def connect(cls, context: str | None = None) -> Self:
        """By ``context`` of the kubeconfig, or its current one; in a pod without a kubeconfig by its service account.

        Raises:
            NotFoundError: no context has that name.
            UnreachableError: there is no kubeconfig, or it cannot be read.
        """
        configuration = Configuration()
        try:
            file = os.environ.get("KUBECONFIG") or None
            if context is None and file is None and (_SERVICE_ACCOUNT / "token").exists():
                load_incluster_config(client_configuration=configuration)
                namespace = (_SERVICE_ACCOUNT / "namespace").read_text().strip()
            else:
                load_kube_config(file, context, client_configuration=configuration)
                config = _kubeconfig(file)
                chosen = config["contexts"].get_with_name(context or config["current-context"])
                namespace = chosen["context"].safe_get("namespace")
        except _UNREADABLE as error:
            with suppress(*_UNREADABLE):
                known = tuple(str(one["name"]) for one in _kubeconfig(file)["contexts"].value)
                if context is not None and known and context not in known:
                    raise NotFoundError("context", context, known) from None
            hint = "set KUBECONFIG to the file that `kubectl` uses; `kubectl config get-contexts` lists what is in it"
            raise UnreachableError(f"no Kubernetes cluster is configured: {said(error)}", hint) from None
        api = cls(configuration)
        api.namespace = namespace or api.namespace
        return api

    def get(self, path: str, **query: str) -> Manifest:
        return self._request("GET", path, query)

    def find(self, path: str) -> Manifest | None:
        """The object, or None where there is none of that name; a kind that is not known is an error all the same."""
        try:
            return self.get(path)
        except NotFoundError as error:
            if error.kind in ("namespace", "kind"):
                raise
            return None

    def list(self, path: str, **query: str) -> Sequence[Manifest]:
        """All of them, page by page; from the beginning again where that took longer than the server keeps a list."""
        for attempt in (1, 2, 3):
            found: list[Manifest] = []
            more: dict[str, str] = {}
            try:
                while True:
                    page = self._request("GET", path, {**query, "limit": str(_PAGE), **more})
                    found += page.get("items", ())
                    token = page.get("metadata", {}).get("continue")
                    if not token:
                        return found
                    more = {"continue": token}
            except _ExpiredError:
                if attempt == 3:
                    message = f"{self.server} forgot the list {path} three times before it was read"
                    raise UnreachableError(message, "try again in a moment; it may be short of memory") from None
        raise AssertionError("unreachable")

    def apply(self, path: str, body: Manifest, *, force: bool = False, dry_run: bool = False) -> Manifest:
        """Server-side apply: the fields of ``body`` are ours from now on, and those that we had before and that are
        not in it are gone. ``force``: also those that others have set."""
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict", "force": "true" if force else "false"}
        if dry_run:
            query["dryRun"] = "All"
        return self._request("PATCH", path, query, json.dumps(body), "application/apply-patch+yaml")

    def patch(self, path: str, operations: Sequence[Manifest], manager: str) -> Manifest:
        """Change fields by a JSON patch, whose ``test`` operations must hold (else ``ConflictError``)."""
        query = {"fieldManager": manager}
        try:
            return self._request("PATCH", path, query, list(operations), "application/json-patch+json")
        except UsageError as error:  # 422, which is what a test that does not hold is told by
            raise ConflictError(f"{path} has changed since it was read: {error}", "try again") from None

    def delete(self, path: str) -> bool:
        """Whether there was one. What it owns is deleted first."""
        try:
            self._request("DELETE", path, {"propagationPolicy": "Foreground"})
        except NotFoundError as error:
            if error.kind == "namespace":
                raise
            return False
        return True

    def _request(
        self, method: str, path: str, query: Mapping[str, str], body: Any = None, kind: str = "application/json"
    ) -> Manifest:
        """Everything here may be repeated: an apply that was heard twice changes nothing the second time, and a patch
        is refused then, by its own tests."""
        until, failures = self._clock() + _PATIENCE_SECONDS, 0
        while True:
            status, headers, text = self._send(method, path, query, body, kind)
            if status < 300:
                return _document(text, self.server)
            if status == _GONE and "continue" in query:
                raise _ExpiredError(path)
            failures += 1
            pause = max(_retry_after(headers), pause_after(failures))
            if status not in _BUSY or self._clock() + pause > until:
                self._refuse(status, text, path)
            self._sleep(pause)

    def _send(
        self, method: str, path: str, query: Mapping[str, str], body: Any, kind: str
    ) -> tuple[int, Mapping[str, str], str]:
        headers = {"Accept": "application/json"} | ({"Content-Type": kind} if body is not None else {})
        prepared = self._client.param_serialize(
            method, path, query_params=list(query.items()), header_params=headers, auth_settings=["BearerToken"]
        )
        try:
            answer = self._client.rest_client.request(
                prepared[0], prepared[1], headers=prepared[2], body=body, _request_timeout=_ANSWER_SECONDS
            )
            text = bytes(answer.read() or b"").decode("utf-8", "replace")
        except (HTTPError, ApiException, OSError) as error:
            raise self._no_answer(error) from None
        return int(answer.status), {name.lower(): value for name, value in answer.headers.items()}, text

    def _no_answer(self, error: Exception) -> EpochalError:
        text = said(getattr(error, "reason", None) or error)  # of a request given up, the last attempt's
        if "certificate" in text.lower():
            hint = "the kubeconfig is of another cluster, or its certificates are out of date: fetch it anew"
            return UnreachableError(f"{self.server} does not prove who it is: {text}", hint)
        hint = "`kubectl cluster-info` tries the same; look at KUBECONFIG, the context, VPN and proxy"
        return UnreachableError(f"the API server {self.server} does not answer: {text}", hint)

    def _refuse(self, status: int, text: str, path: str) -> NoReturn:
        try:
            document = json.loads(text)
        except ValueError:
            document = {}
        if not isinstance(document, dict):
            document = {}
        if status == 401:
            hint = "sign in again as `kubectl` needs it; `kubectl auth whoami` shows whom the server sees"
            raise AuthError(f"{self.server} does not know who asks: {document.get('message', text.strip())}", hint)
        raise refusal(status, document, path, self.server)


class _ExpiredError(Exception):
    """The rest of a list is not kept any more."""


def _kubeconfig(file: str | None) -> Any:
    """As the client merges it of several files. Its own list of contexts takes one to be the current one."""
    return KubeConfigMerger(file or KUBE_CONFIG_DEFAULT_LOCATION).config


def _document(text: str, server: str) -> Manifest:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UnreachableError(
            f"{server} is no API server of Kubernetes: it answers {text[:80]!r}", "look at KUBECONFIG"
        )
    return found


def _retry_after(headers: Mapping[str, str]) -> float:
    value = headers.get("retry-after", "")
    return float(value) if value.isdecimal() else 0.0
