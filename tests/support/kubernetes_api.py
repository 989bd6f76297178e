"""A stand-in for the API server of Kubernetes, for the answers that a real one gives only in trouble.

It keeps objects as they are applied, with resource versions and field managers of whole objects, and gives the answers
of ``trouble`` first. What applies and waits is tried on a real cluster too (``tests/kubernetes``).
"""

from __future__ import annotations

import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import yaml

Answer = tuple[int, dict[str, Any], dict[str, str]]


def status(code: int, message: str, **details: Any) -> dict[str, Any]:
    """A ``Status``, as the API server answers."""
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code, **details}


class KubernetesApi:
    """``with KubernetesApi() as api: api.trouble.append((503, status(503, "not ready"), {}))``."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        """By path."""
        self.trouble: deque[Answer] = deque()
        """Answers to the next requests, whatever they are about."""
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.page = 1000
        self._version = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig that names this server."""
        file = folder / "kubeconfig"
        cluster = {"name": "stand-in", "cluster": {"server": self.url}}
        user = {"name": "somebody", "user": {"token": "a-token-of-somebody"}}
        context = {"name": "one", "context": {"cluster": "stand-in", "user": "somebody", "namespace": "training"}}
        config = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "users": [user], "contexts": [context]}
        file.write_text(yaml.safe_dump({**config, "current-context": "one"}))
        return file

    def put(self, path: str, document: dict[str, Any], manager: str = "somebody") -> None:
        """An object, as if it were there; its whole spec is the ``manager``'s."""
        self._version += 1
        before = self.objects.get(path, {}).get("metadata", {})
        uid = before.get("uid", f"uid-{self._version}")
        metadata = {**document.get("metadata", {}), "resourceVersion": str(self._version), "uid": uid}
        self.objects[path] = {**document, "metadata": metadata | {"managedFields": [{"manager": manager}]}}

    def answer(self, method: str, target: str, body: Any) -> Answer:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.requests.append((method, parts.path, query))
        if self.trouble:
            return self.trouble.popleft()
        if method == "PATCH":
            return self._patch(parts.path, query, body)
        if method == "DELETE":
            found = self.objects.pop(parts.path, None)
            return (200, found, {}) if found else self._missing(parts.path)
        if parts.path in self.objects:
            return 200, self.objects[parts.path], {}
        if len(parts.path.split("/namespaces/")[1].split("/")) > 2:
            return self._missing(parts.path)
        return self._list(parts.path, query)

    def _list(self, path: str, query: dict[str, str]) -> Answer:
        wanted = [one.split("=") for one in query.get("labelSelector", "").split(",") if one]
        found = [
            one
            for key, one in self.objects.items()
            if key.startswith(f"{path}/") and all(_has(one, *label) for label in wanted)
        ]
        begin, size = int(query.get("continue", 0)), min(self.page, int(query.get("limit", 1000)))
        metadata = {"continue": str(begin + size)} if begin + size < len(found) else {}
        return 200, {"kind": "List", "metadata": metadata, "items": found[begin : begin + size]}, {}

    def _patch(self, path: str, query: dict[str, str], body: Any) -> Answer:
        before = self.objects.get(path)
        if isinstance(body, list):
            return self._changed(path, query, body, before) if before else self._missing(path)
        # Unless whoever asks has all rights anyway, Kubernetes looks at what a binding would give.
        if body["kind"] == "RoleBinding":
            role = f"{path.rpartition('/rolebindings/')[0]}/roles/{body['roleRef']['name']}"
            if role not in self.objects:
                return self._missing(path)
        if before is not None:
            body |= {"status": before["status"]} if "status" in before else {}  # which an apply does not reach
            expected = body["metadata"].pop("resourceVersion", before["metadata"]["resourceVersion"])
            if expected != before["metadata"]["resourceVersion"]:
                return 409, status(409, "the object has been modified", reason="Conflict"), {}
            manager = before["metadata"]["managedFields"][0]["manager"]
            if manager != query["fieldManager"] and before.get("spec") != body.get("spec") and query["force"] != "true":
                message = f'conflict with "{manager}" using {body["apiVersion"]}'
                cause = {"reason": "FieldManagerConflict", "message": message, "field": ".spec"}
                return 409, status(409, "Apply failed with 1 conflict", details={"causes": [cause]}), {}
        if "dryRun" in query or (before and {**before, "metadata": {}} == {**body, "metadata": {}}):
            return 200, body if "dryRun" in query else before or {}, {}
        self.put(path, body, query["fieldManager"])
        return 200 if before else 201, self.objects[path], {}

    def _changed(self, path: str, query: dict[str, str], operations: list[Any], before: dict[str, Any]) -> Answer:
        """By a JSON patch."""
        changed = json.loads(json.dumps(before))
        for one in operations:
            *at, last = one["path"].strip("/").split("/")
            place: Any = changed
            for step in at:
                place = place[int(step)] if isinstance(place, list) else place[step]
            if one["op"] == "test" and place.get(last) != one["value"]:
                told = "the server rejected our request due to an error in our request"
                return 422, status(422, told, reason="Invalid"), {}
            if one["op"] == "add":
                place[last] = one["value"]
        self.put(path, changed, query["fieldManager"])
        return 200, self.objects[path], {}

    @staticmethod
    def _missing(path: str) -> Answer:
        *_, plural, name = path.split("/")
        return 404, status(404, f'{plural} "{name}" not found', details={"kind": plural, "name": name}), {}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body at once: the body would wait 40 ms for the client to acknowledge the head

            def answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                code, document, headers = api.answer(self.command, self.path, body)
                content = json.dumps(document).encode()
                self.send_response(code)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PATCH = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _has(one: dict[str, Any], label: str, value: str | None = None) -> bool:
    labels = one["metadata"].get("labels", {})
    return label in labels and value in (None, labels[label])
