"""A real server in this process, and the agent's side of it, played step by step."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import uvicorn

from epochal.client import Client
from epochal.client.remote_ledger import RemoteLedger
from epochal.ledger.capacity import Node
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Job, Lease
from epochal.server.app import create_app
from epochal.server.settings import ServerSettings

SPEC = {
    "version": 1,
    "name": "small",
    "model": {"name": "mlp"},
    "data": {"name": "digits"},
    "train": {"epochs": 1},
    "resources": {"workers": 1},
}


class RunningServer:
    """Epochal's server in a thread; it can be stopped and started again on the same port and ledger."""

    def __init__(self, folder: Path) -> None:
        self._token = folder / "token"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = int(free.getsockname()[1])
        self._settings = ServerSettings(
            f"sqlite:///{folder / 'ledger.db'}", str(folder / "storage"), port=self._port, single_user=True,
            token_file=self._token,
        )  # fmt: skip
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def token(self) -> str:
        return self._token.read_text().strip()

    def start(self) -> None:
        app = create_app(self._settings)
        config = uvicorn.Config(app, host="127.0.0.1", port=self._port, log_level="error", timeout_graceful_shutdown=1)
        self._answer_waiting = app.state.services.notifier.close
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        until = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.01)

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._answer_waiting()
            self._server.should_exit = True
            self._thread.join(20)
            assert not self._thread.is_alive(), "the server did not stop"

    def client(self, token: str | None = None) -> Client:
        return Client(self.url, token or self.token)


class PlayedAgent:
    """Does what an agent tells a server, when the test says so; no workers."""

    name, incarnation = "played", "one"

    def __init__(self, url: str, token: str) -> None:
        self.ledger = RemoteLedger(url, token)
        self.owner = f"{self.name}/{self.incarnation}"

    def appear(self, cpus: float = 4.0) -> None:
        share = {"CPU": cpus}
        self.ledger.heartbeat(self.name, self.incarnation, [Node("node-1", "here", share, share)])

    def lease(self, job_id: str | None = None) -> Lease:
        lease = self.ledger.lease(self.owner, 30.0, job_id, wait=5.0)
        assert lease is not None
        return lease

    def carry(self, job_id: str, said: str = "") -> Job:
        """One job, by its id or name, from the queue to its success."""
        lease = self.lease(self.ledger.job(job_id).id)
        self.ledger.running(lease, 1)
        if said:
            self.ledger.append_log(lease, 0, 0, said.encode())
        return self.ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
