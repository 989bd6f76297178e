"""A whole Epochal of real processes that a test kills and starts again: PostgreSQL, MLflow, server, agent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from foreground import title

from epochal.client.client import Client
from epochal.errors import UnreachableError
from epochal.ledger.ledger import Ledger
from epochal.ledger.values import Role
from epochal.settings import Home
from epochal.tracking.server import TrackingServer
from epochal.urls import free_port
from polling import pause_after
from postgres import Postgres, binaries

READY_SECONDS = 60.0
WORKER = re.compile(r"\bepochal:\S+:rank(\d+)\s*$")


class Process:
    """One of Epochal's own services, started by its command; ``within`` goes before that (`ip netns exec NAME`)."""

    def __init__(
        self,
        name: str,
        folder: Path,
        arguments: tuple[str, ...],
        environ: Mapping[str, str],
        within: Sequence[str] = (),
        log: str = "",
    ) -> None:
        self.name = name
        self._log = folder / f"{log or name}.log"
        self._command = [*within, sys.executable, "-m", "epochal.cli.main", name, *arguments]
        self._environ = {**os.environ, **environ}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, env=self._environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def kill(self) -> None:
        """SIGKILL it; what it started is left to look after itself."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM, and its exit code."""
        if self._process is None:
            return 0
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def wait_for_end(self, seconds: float = READY_SECONDS) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    def family(self) -> list[psutil.Process]:
        """The process and all below it."""
        if self._process is None or self._process.poll() is not None:
            return []
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        return []


class Stack:
    """Use it as a context manager. Every part keeps its port and its data over its restarts."""

    def __init__(self, folder: Path) -> None:
        programs = binaries()
        assert programs is not None, "PostgreSQL is not installed: apt install postgresql"
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.postgres = Postgres(programs)
        self.mlflow = TrackingServer(f"sqlite:///{folder / 'mlflow.db'}", port=free_port(), log=folder / "mlflow.log")
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = folder

    def __enter__(self) -> Stack:
        self.postgres.__enter__()
        self.mlflow.start()
        self.ledger_url = self.postgres.new_url()
        with Ledger.open(self.ledger_url) as ledger:
            self._token = ledger.create_token("tester", Role.ADMIN)[1]
        token_file = self._folder / "token"
        token_file.write_text(self._token)
        token_file.chmod(0o600)
        environ = {"EPOCHAL_HOME": str(self.home), "MLFLOW_TRACKING_URI": self.mlflow.url}
        storage = (self._folder / "server-storage").as_uri()
        self.server = Process(
            "server", self._folder,
            ("--port", self.url.rpartition(":")[2], "--ledger", self.ledger_url, "--storage", storage,
             "--mlflow-uri", self.mlflow.url), environ,
        )  # fmt: skip
        agent = ("--server", self.url, "--token-file", str(token_file), "--name", "agent-1")
        self.agent = Process("agent", self._folder, agent, environ)
        self.server.start()
        self.agent.start()
        self.client = Client(self.url, self._token)
        self.wait_until_ready()
        return self

    def __exit__(self, *error: object) -> None:
        self.agent.stop()
        self.server.stop()
        self.mlflow.stop()
        self.postgres.__exit__(*error)

    def wait_until_ready(self) -> None:
        """Until the server answers and the agent has told it what it has."""
        self.until(lambda: any(agent.alive for agent in self.client.agents()), "the agent is there")

    def until(self, condition: Callable[[], Any], what: str, seconds: float = READY_SECONDS) -> Any:
        """Wait for something that the server may be too dead to tell right now; what it was."""
        deadline = time.monotonic() + seconds
        while True:
            begun = time.monotonic()
            with suppress(UnreachableError):
                if found := condition():
                    return found
            if (looked := time.monotonic()) > deadline:
                logs = f"{self.server.log[-3000:]}\n{self.agent.log[-6000:]}"
                raise AssertionError(f"not within {seconds:g} s: {what}\n{logs}")
            time.sleep(pause_after(looked - begun))

    def workers(self) -> Iterator[tuple[int, psutil.Process]]:
        """The ranks that run below the agent, by the names they give themselves."""
        for process in self.agent.family():
            if found := WORKER.search(title(process)):
                yield int(found[1]), process

    def rays(self, name: str) -> list[psutil.Process]:
        """Ray's own processes of that name (``raylet``, ``gcs_server``) below the agent."""
        return [process for process in self.agent.family() if _name(process) == name]

    def job_folder(self, job_id: str) -> Path:
        return Home(self.home).served.job(job_id)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""
