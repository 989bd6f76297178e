"""An HTTP proxy in front of a real server that answers some requests itself, as proxies, quotas and gateways do."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlparse

_HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


class Gate:
    """``refuse(413, "<html>", "log-batch")``: every request with that in its path gets this answer, until ``open``."""

    def __init__(self, target: str) -> None:
        self._target = urlparse(target).netloc
        self._answer: tuple[int, str, str, int] | None = None
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body at once: the body would wait 40 ms for the client to acknowledge the head

            def do_GET(self) -> None:
                gate._handle(self)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def refuse(self, status: int, body: str, path: str = "/", longer_than: int = -1) -> None:
        self._answer = (status, body, path, longer_than)

    def open(self) -> None:
        self._answer = None

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        refused = self._answer
        if refused is not None and refused[2] in request.path and len(body) > refused[3]:
            self._reply(request, refused[0], {}, refused[1].encode())
            return
        onward = http.client.HTTPConnection(self._target, timeout=30)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        onward.request(request.command, request.path, body, headers)
        answer = onward.getresponse()
        self._reply(request, answer.status, dict(answer.getheaders()), answer.read())
        onward.close()

    def _reply(self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        request.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _HOP:
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
