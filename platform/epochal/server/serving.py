"""Runs the application until a signal, and then stops within seconds, however many clients wait for an answer."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from epochal.errors import UnreachableError, UsageError
from epochal.server.app import create_app
from epochal.server.error_responses import error_response
from epochal.server.services import Services
from epochal.server.settings import ServerSettings
from epochal.urls import http_url, is_loopback

_BACKLOG = 512
_GRACE_SECONDS = 3
_LONGEST_HEAD = 2**20
"""Bytes of a request's address and headers: more than the longest parameter that is described, a log's cursor, takes
where every character of it is escaped."""
_SWITCH_SECONDS = 0.0005
"""A call of the ledger gives the interpreter up at each of its statements, and on a busy server waits for it as long as
this each time: with Python's own 5 ms a renewal of ten statements takes 50."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(settings: ServerSettings, on_ready: Callable[[str], None]) -> None:
    """Answer requests until SIGTERM or SIGINT. ``on_ready`` gets the address once they are answered.

    Raises:
        UsageError: a setting cannot be used, or the address is taken.
        UnreachableError: the database or the storage does not answer.
    """
    if settings.single_user and not is_loopback(settings.host):
        raise UsageError(f"a single user's server stays on this machine, and {settings.host} is for others too")
    sys.setswitchinterval(_SWITCH_SECONDS)
    with listening(settings) as listener:

        def ready() -> None:
            gc.collect()
            gc.freeze()  # or each full collection looks at 100,000 objects that stay, for 0.1 s, and nobody is answered
            on_ready(http_url(settings.host, listener.getsockname()[1]))

        server = Server(create_app(settings), ready)
        with _signals_end_quietly():
            server.run(sockets=[listener])
    if not server.started:
        raise UnreachableError("the server could not be started", "its log says why")


class LimitedHead(HttpToolsProtocol):
    """Refuses a request once its address and headers are longer than ``_LONGEST_HEAD``: the parser takes what comes.

    What it refuses itself, an address of more than 64 KiB among it, is told in the shape of all our errors.
    """

    _head_is_whole = False
    _received = 0

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_is_whole, self._received = False, 0

    def on_headers_complete(self) -> None:
        self._head_is_whole = True
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._head_is_whole:
            self._received += len(data)
            if self._received > _LONGEST_HEAD:
                self.send_400_response(f"its address and headers have more than {_LONGEST_HEAD:,} bytes")

    def send_400_response(self, msg: str) -> None:
        refused = error_response(UsageError(f"the request is not understood: {msg}"))
        head = [(b"connection", b"close"), *refused.raw_headers]
        lines = [b"HTTP/1.1 400 Bad Request", *(b": ".join(header) for header in head), b"", bytes(refused.body)]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()


class Server(uvicorn.Server):
    """Runs an application of ``create_app``. When it stops, the long polls are answered first, then the rest."""

    def __init__(self, app: FastAPI, on_ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="on",
            timeout_keep_alive=30,
            http=LimitedHead,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        super().__init__(config)
        self._services: Services = app.state.services
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            await asyncio.to_thread(self._on_ready)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._services.notifier.close()
        await super().shutdown(sockets=sockets)


@contextmanager
def listening(settings: ServerSettings) -> Iterator[socket.socket]:
    """Bound before anything is opened, so that a second server does not touch the first one's database."""
    try:
        kind = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=kind, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        where = f"{settings.host}:{settings.port}"
        hint = "is another server running? choose a free port with --port"
        raise UsageError(f"cannot listen on {where}: {getattr(error, 'strerror', None) or error}", hint) from error
    with listener:
        # asyncio sets this where a socket's protocol is spelt out, which that of an accepted one is not; without it
        # the second part of an answer waits for the client's delayed acknowledgement of the first: 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


@contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """uvicorn raises the signal that ended it once more when it is done, for whoever was there before."""
    before = {number: signal.signal(number, lambda _number, _frame: None) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
