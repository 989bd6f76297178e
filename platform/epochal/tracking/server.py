"""A lean MLflow server (UI and REST) on this machine's runs, as a child process."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from epochal.errors import ConflictError, UnreachableError, UsageError
from epochal.settings import DEFAULT_MLFLOW_PORT
from epochal.tracking.connection import is_sqlite
from epochal.urls import LOOPBACK, http_url, without_password

START_SECONDS = 60.0
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class ServerPlan:
    """How the server is started: one process, no job executor, no telemetry."""

    url: str
    command: tuple[str, ...]
    environment: dict[str, str]


def plan_server(uri: str, host: str = LOOPBACK, port: int = DEFAULT_MLFLOW_PORT) -> ServerPlan:
    """The plan for a server on the SQLite file ``uri``.

    Raises:
        UsageError: ``uri`` is a tracking server itself, or another kind of store.
    """
    if not is_sqlite(uri):
        shown = without_password(uri)
        raise UsageError(f"the runs are at {shown}, not in a file of this machine", f"open {shown} in a browser")
    command = (sys.executable, "-W", "ignore", "-m", "epochal.tracking.serve", uri, host, str(port))
    environment = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_MODEL_CATALOG_URI": "",  # else it fetches lists of language models from GitHub
        "MLFLOW_LOGGING_LEVEL": "WARNING",
    }
    return ServerPlan(http_url(host, port), command, environment)


class TrackingServer:
    """The server's process; stopped by this handle, with all its children.

    ``log`` is the file that its output goes to.
    """

    def __init__(
        self, uri: str, host: str = LOOPBACK, port: int = DEFAULT_MLFLOW_PORT, log: Path | None = None
    ) -> None:
        self.plan = plan_server(uri, host, port)
        self._address = (host, port)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.plan.url

    def start(self, seconds: float = START_SECONDS) -> Self:
        """Start it and wait until it answers.

        Raises:
            ConflictError: the port is taken.
            UnreachableError: it ended, or did not answer within ``seconds``.
        """
        self._check_port()
        output: IO[bytes] | int = self._log.open("ab") if self._log else subprocess.DEVNULL
        self._process = subprocess.Popen(
            self.plan.command,
            env={**os.environ, **self.plan.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        if not isinstance(output, int):
            output.close()
        try:
            self._wait_for_an_answer(self._process, time.monotonic() + seconds)
        except BaseException:  # Ctrl-C too: it is in a session of its own, which a terminal's does not reach
            self.stop()
            raise
        return self

    def wait(self) -> int:
        """Wait until the server ends by itself; its exit code."""
        return self._process.wait() if self._process else 0

    def stop(self) -> None:
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        # Whatever it has started goes with it.
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_for_an_answer(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                hint = f"its output is in {self._log}" if self._log else "another port or host may help"
                raise UnreachableError(f"the MLflow server did not start on {self.url}", hint)
            time.sleep(0.1)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _check_port(self) -> None:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        with socket.socket(family) as probe:
            # As servers bind: connections that have just ended keep nobody from the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(self._address)
            except OSError as error:
                raise ConflictError(
                    f"cannot listen on {self.url}: {error.strerror}", "choose another one with --port"
                ) from error

    def _answers(self) -> bool:
        # A server on every interface answers on loopback too, and its Host check knows that name.
        url = self.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        # Past any proxy that the environment names.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException):  # the latter of a program on this port that is none of HTTP
            return False
