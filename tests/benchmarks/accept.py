"""How fast a server takes jobs: 1,000 submissions by 8 clients at once, and what it answers with 1,000 queued."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import quantiles

from contender import BIN, workspace
from measure import Promise, Section, interleave

JOBS, CLIENTS = 1_000, 8
SPEC = {
    "version": 1,
    "name": "no-op",
    "model": {"name": "mlp"},
    "data": {"name": "digits"},
    "train": {"epochs": 1},
}


def measure(rounds: int, quick: bool) -> Section:
    jobs = 200 if quick else JOBS
    with workspace() as (_, environment):
        raw = interleave(rounds, {"server": lambda: _measured(environment, jobs)})
    return Section(
        "accept",
        "seconds",
        raw,
        [
            Promise("accept a job, p95", "submit p95", limit=0.05),
            Promise("accept a job, median", "submit p50"),
            Promise("list jobs", "GET /jobs", limit=0.2),
            Promise("the page", "GET /overview", limit=0.2),
        ],
        [f"{jobs} jobs by {CLIENTS} clients, each over one connection; SQLite, synchronous = FULL"],
    )


def _measured(environment: dict[str, str], jobs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, server(environment, Path(folder)) as (address, token, _):
        with ThreadPoolExecutor(CLIENTS) as pool:
            times = [
                one
                for some in pool.map(lambda _: _submits(address, token, jobs // CLIENTS), range(CLIENTS))
                for one in some
            ]
        cuts = quantiles(times, n=100)
        asked = {f"GET {path}": _asks(address, token, path) for path in ("/jobs", "/overview")}
    return {"submit p50": cuts[49], "submit p95": cuts[94], "submit p99": cuts[98], **asked}


@contextmanager
def server(
    environment: dict[str, str], folder: Path, ledger: str | None = None
) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """Its address, its administrator's token, and the process."""
    where = ["--ledger", ledger or f"sqlite:///{folder / 'ledger.db'}", "--storage", str(folder / "storage")]
    command = [sys.executable, BIN / "epochal", "server", "--port", "0", "--token-file", str(folder / "token"), *where]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip().removeprefix("http://")
            yield address, (folder / "token").read_text().strip(), process
        finally:
            process.terminate()


def _submits(address: str, token: str, count: int) -> list[float]:
    body = json.dumps({"spec": SPEC})
    return _timed(address, lambda connection: _answered(connection, "POST", "/jobs", token, body), count)


def _asks(address: str, token: str, path: str) -> float:
    return sorted(_timed(address, lambda connection: _answered(connection, "GET", path, token), 11))[5]


def _timed(address: str, call: Callable[[HTTPConnection], None], count: int) -> list[float]:
    connection = HTTPConnection(address)
    times = []
    for _ in range(count):
        began = time.perf_counter()
        call(connection)
        times.append(time.perf_counter() - began)
    connection.close()
    return times


def _answered(connection: HTTPConnection, method: str, path: str, token: str, body: str | None = None) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request(method, f"/api/v1{path}", body, headers)
    answer = connection.getresponse()
    answer.read()
    assert answer.status < 300, answer.status
