"""A thousand jobs wait in one server, cost no process, slow nobody down, and each is run once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

import httpx
import psutil
import pytest

from epochal.client.remote_ledger import RemoteLedger
from epochal.ledger.capacity import Node
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Reason
from running_server import SPEC

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

JOBS, CLIENTS, AT_ONCE, BEAT_EVERY = 1_000, 8, 4, 50
ANSWER_SECONDS = 0.2
CPUS = {"CPU": 64.0}


@contextmanager
def server(home: Path) -> Iterator[tuple[psutil.Process, httpx.Client]]:
    command = [sys.executable, "-m", "epochal.cli.main", "server", "--port", "0"]
    environ = {**os.environ, "EPOCHAL_HOME": str(home)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            secret = (home / "token").read_text().strip()
            with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {secret}"}, timeout=40) as client:
                yield psutil.Process(process.pid), client
        finally:
            process.terminate()


def submits(client: httpx.Client, count: int) -> list[tuple[str, float]]:
    """Ids, and how long each took to be accepted."""
    accepted = []
    with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=40) as own:
        for _ in range(count):
            begun = time.perf_counter()
            answer = own.post("/api/v1/jobs", json={"spec": {**SPEC, "resources": {"workers": 1}}})
            accepted.append((answer.raise_for_status().json()["job"]["id"], time.perf_counter() - begun))
    return accepted


def seconds_of(client: httpx.Client, path: str) -> float:
    """The median of eleven answers."""

    def one() -> float:
        begun = time.perf_counter()
        client.get(path).raise_for_status()
        return time.perf_counter() - begun

    return median(one() for _ in range(11))


class IdleAgent:
    """Takes every job there is, and says of each that it trained and succeeded."""

    def __init__(self, source: RemoteLedger) -> None:
        self._source = source
        self._held: set[tuple[str, int]] = set()
        self._lock = threading.Lock()
        self.leased: list[str] = []

    def run(self) -> None:
        self._beat()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda _: self._work(), range(AT_ONCE)))

    def _work(self) -> None:
        while (lease := self._source.lease("idle/1", 60.0)) is not None:
            held = (lease.job_id, lease.epoch)
            with self._lock:
                self.leased.append(lease.job_id)
                self._held.add(held)
                beats = len(self.leased) % BEAT_EVERY == 0
            if beats:
                self._beat()
            self._source.running(lease, 1)
            self._source.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
            with self._lock:
                self._held.discard(held)

    def _beat(self) -> None:
        node = Node("node-1", "127.0.0.1", {**CPUS, "memory": 2.0**40}, {**CPUS, "memory": 2.0**40})
        with self._lock:
            held = sorted(self._held)
        self._source.heartbeat("idle", "1", [node], held, {})


def test_a_thousand_jobs_wait_and_are_each_run_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with server(home) as (process, client):
        idle_threads = process.num_threads()
        with ThreadPoolExecutor(CLIENTS) as pool:
            accepted = [
                one for some in pool.map(lambda _: submits(client, JOBS // CLIENTS), range(CLIENTS)) for one in some
            ]
        cuts = quantiles((seconds for _, seconds in accepted), n=100)
        print(f"accepted: median {cuts[49] * 1000:.1f} ms, p95 {cuts[94] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms")
        submitted = {job_id for job_id, _ in accepted}
        assert len(submitted) == JOBS
        assert process.children(recursive=True) == [], "no process for a queued job"
        print(f"threads: {idle_threads} before, {process.num_threads()} with {JOBS} jobs queued")

        for path in ("/api/v1/jobs", "/api/v1/overview"):
            seconds = seconds_of(client, path)
            print(f"GET {path}: {seconds * 1000:.0f} ms")
            assert seconds < ANSWER_SECONDS
        assert client.get("/api/v1/overview").json()["counts"][JobState.QUEUED] == JOBS

        begun = time.monotonic()
        with RemoteLedger(str(client.base_url), client.headers["Authorization"].removeprefix("Bearer ")) as source:
            agent = IdleAgent(source)
            agent.run()
        print(f"ended all in {time.monotonic() - begun:.1f} s")
    assert Counter(agent.leased) == Counter(submitted), "none lost, none leased twice"
    with Ledger.open(f"sqlite:///{home / 'server' / 'ledger.db'}") as ledger:
        assert len(ledger.jobs(states=[JobState.SUCCEEDED], limit=2 * JOBS)) == JOBS
        for job_id in submitted:
            assert [attempt.epoch for attempt in ledger.attempts(job_id)] == [1]
