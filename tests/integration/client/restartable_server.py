"""A real server in this process, and the agent's side of it, played step by step."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import running_server
from epochal.client import Client
from epochal.client.remote_ledger import RemoteLedger
from epochal.ledger.capacity import Node
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Job, Lease
from epochal.urls import free_port
from running_server import RunningServer, settings_in

SPEC = {**running_server.SPEC, "name": "small", "resources": {"workers": 1}}


class RestartableServer:
    """Epochal's server in a thread; it can be stopped and started again on the same port and ledger."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self._settings = settings_in(folder, port=port, single_user=True)
        self._token = folder / "token"
        self._running: RunningServer | None = None
        self.url = f"http://127.0.0.1:{port}"

    @property
    def ledger_url(self) -> str:
        return self._settings.ledger_url

    @property
    def token(self) -> str:
        return self._token.read_text().strip()

    def start(self) -> None:
        self._running = RunningServer(self._settings)
        self._running.__enter__()

    def stop(self) -> None:
        if self._running is not None:
            self._running.__exit__(None, None, None)
            self._running = None

    def client(self, token: str | None = None) -> Client:
        return Client(self.url, token or self.token)


class PlayedAgent:
    """Does what an agent tells a server, when the test says so; no workers."""

    incarnation = "one"

    def __init__(self, server: RestartableServer, name: str = "played") -> None:
        self.name = name
        self.ledger = RemoteLedger(server.url, server.token)
        self._server = server
        self.owner = f"{self.name}/{self.incarnation}"

    def appear(self, cpus: float = 4.0, storage: str | None = None, **detail: Any) -> None:
        share = {"CPU": cpus}
        nodes = [Node("node-1", "here", share, share)]
        self.ledger.heartbeat(self.name, self.incarnation, nodes, (), detail, storage)

    def lease(self, job_id: str) -> Lease:
        """This very job, which agents do not choose: straight from the server's ledger."""
        with Ledger.open(self._server.ledger_url) as ledger:
            lease = ledger.lease(self.owner, 30.0, job_id, secrets.token_urlsafe(32))
        assert lease is not None
        return lease

    def carry(self, job_id: str, said: str = "") -> Job:
        """One job, by its id or name, from the queue to its success."""
        lease = self.lease(self.ledger.job(job_id).id)
        self.ledger.running(lease, 1)
        if said:
            self.ledger.append_log(lease, 0, 0, said.encode())
        return self.ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
