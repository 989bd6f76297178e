"""A real MLflow server on a SQLite file and a random port."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from contender import BIN, Contender, free_port
from steps import wait_for


@contextmanager
def running(folder: Path, env: Mapping[str, str], workers: int | None = None) -> Iterator[str]:
    """Gives its address. ``workers`` is the number of its processes, by default MLflow's own (4)."""
    home = folder / "mlflow"
    home.mkdir()
    port = free_port()
    command: list[str | Path] = [
        BIN / "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}", "--artifacts-destination", home / "artifacts",
        *([] if workers is None else ["--workers", str(workers)]),
    ]  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    with Contender(command, home, {**env, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}) as server:
        wait_for("an answer of the MLflow server", lambda: _answers(f"{address}/health"), server.alive)
        yield address


def refusing() -> str:
    """An address where nothing listens."""
    return f"http://127.0.0.1:{free_port()}"


@contextmanager
def silent() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def _answers(url: str) -> bool | None:
    with suppress(OSError), urllib.request.urlopen(url, timeout=2):
        return True
    return None
