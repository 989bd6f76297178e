"""A real server on a free port, in a thread of the test, and clients for each role."""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from fastapi import FastAPI

from epochal.ledger.ledger import Ledger
from epochal.server.app import create_app
from epochal.server.services import Services
from epochal.server.serving import Server, listening
from epochal.server.settings import ServerSettings

API = "/api/v1"
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Reading those of every authority takes longer than what a test asks for over http."""
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "digits",
    "model": {"name": "mlp"},
    "data": {"name": "digits"},
    "train": {"epochs": 1},
}


def settings_in(folder: Path, **changed: Any) -> ServerSettings:
    known = {
        "ledger_url": f"sqlite:///{folder / 'ledger.db'}",
        "storage_url": str(folder / "server"),
        "token_file": folder / "token",
        "port": 0,
    }
    return ServerSettings(**{**known, **changed})


class RunningServer:
    """``with RunningServer(settings) as server: server.admin.get("/whoami")``."""

    def __init__(self, settings: ServerSettings) -> None:
        self.app: FastAPI = create_app(settings)
        self.services: Services = self.app.state.services
        self._settings = settings
        self._started = threading.Event()
        self._server = Server(self.app, self._started.set)
        self._thread = threading.Thread(target=self._run)
        self._port = 0
        self._clients: list[httpx.Client] = []
        self._secret = settings.token_file.read_text().strip() if settings.token_file else ""

    @property
    def ledger(self) -> Ledger:
        return self.services.ledger

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def admin(self) -> httpx.Client:
        return self.client(self._secret)

    def user(self, name: str, role: str = "user") -> httpx.Client:
        return self.client(self.ledger.create_token(name, role)[1])

    def client(self, secret: str | None, api: str = API) -> httpx.Client:
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        client = httpx.Client(base_url=f"{self.url}{api}", headers=headers, timeout=40, verify=NO_CERTIFICATES)
        self._clients.append(client)
        return client

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(30), "the server did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            client.close()
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with listening(self._settings) as listener:
            self._port = listener.getsockname()[1]
            self._server.run(sockets=[listener])
