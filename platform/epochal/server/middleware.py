"""The outermost layer: what holds for every request, whatever it asks.

Too large bodies are refused while they come in, every answer has its security headers and an id, whatever goes wrong
unexpectedly is logged under that id and answered as 500, and every answer is counted.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from epochal.errors import EpochalError, TooLargeError, UnreachableError, UsageError
from epochal.server.code_store import MAX_UPLOAD
from epochal.server.error_responses import error_response
from epochal.server.metrics import Metrics
from epochal.units import Bytes

MAX_BODY = 2 * 2**20
MAX_MUCH = 8 * 2**20
"""Logs, and a thousand trials with their inputs."""
API = "/api/v1"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_API_POLICY = "default-src 'none'; frame-ancestors 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_logger = logging.getLogger(__name__)


class RequestMiddleware:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        began = time.perf_counter()
        try:
            await self._answer(exchange)
        finally:
            seconds = time.perf_counter() - began
            self._metrics.answered(scope["method"], _route(exchange.scope), exchange.status, seconds)

    async def _answer(self, exchange: _Exchange) -> None:
        error = exchange.refused()
        if error is not None:
            await error_response(error)(exchange.scope, exchange.receive, exchange.send)
            return
        try:
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:  # the server stops, and has waited for this as long as it may
            if exchange.status:
                raise
            stopping = UnreachableError("the server is stopping", "ask again once it runs")
            await error_response(stopping)(exchange.scope, exchange.receive, exchange.send)
        except Exception:
            _logger.exception("%s %s failed (%s)", exchange.scope["method"], _route(exchange.scope), exchange.id)
            if exchange.status:
                raise
            hint = f"the server's log has more, under {exchange.id}"
            failure = EpochalError("the server failed to answer this", hint)
            await error_response(failure)(exchange.scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.id = secrets.token_hex(8)
        self.scope = scope
        if scope["method"] == "HEAD" and not scope["path"].startswith(f"{API}/code/"):
            # The server leaves out the body. Code has a HEAD of its own.
            self.scope = {**scope, "method": "GET"}
        self.status = 0
        self.scope.setdefault("state", {})["request_id"] = self.id
        self._receive = receive
        self._send = send
        self._limit = _limit(scope)
        self._received = 0
        headers = Headers(scope=scope)
        self._is_read = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers

    def refused(self) -> EpochalError | None:
        if b"%00" in self.scope.get("query_string", b"") or "\x00" in self.scope["path"]:
            return UsageError("the request's address has a NUL in it")
        length = Headers(scope=self.scope).get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._limit:
            return self._too_large()
        return None

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._is_read = not message.get("more_body", False)
            if self._received > self._limit:
                raise HTTPException(413, str(self._too_large()))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._add_headers(message)
        await self._send(message)

    def _add_headers(self, message: MutableMapping[str, Any]) -> None:
        is_page = not self.scope["path"].startswith(f"{API}/")
        headers = MutableHeaders(scope=message)
        headers["X-Request-Id"] = self.id
        headers["Content-Security-Policy"] = _PAGE_POLICY if is_page else _API_POLICY
        if not self._is_read:
            headers["Connection"] = "close"  # or the rest of the body would be read, only to be thrown away
        headers.setdefault("Cache-Control", "no-cache" if is_page else "no-store")
        for name, value in _HEADERS.items():
            headers[name] = value

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"this request may have {Bytes(self._limit).human()} at the most")


def _limit(scope: Scope) -> int:
    path = scope["path"]
    if path.startswith(f"{API}/code/"):
        return MAX_UPLOAD
    is_much = path.startswith(f"{API}/leases/") and ("/logs/" in path or path.endswith("/inputs"))
    return MAX_MUCH if is_much else MAX_BODY


def _route(scope: Scope) -> str:
    """The template, so that ids make no metric of their own."""
    route = getattr(scope.get("route"), "path", None)
    if not route:
        return "none"
    below = scope["path"].startswith(API) and not route.startswith(API)  # some FastAPIs tell it without the prefix
    return f"{API}{route}" if below else str(route)
