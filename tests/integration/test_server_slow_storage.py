"""A server whose storage hangs: leases are kept, and whoever wanted the storage is told to come back."""

from __future__ import annotations

import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from epochal.files import write_atomically
from polling import until
from running_server import API, SPEC

SCRIPT = Path(__file__).with_name("hanging_storage.py")
JOBS = 3
APPENDS = 20
"""More at once than the server has threads of any kind."""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, SCRIPT, tmp_path], stdout=log, stderr=log)
    try:
        until((tmp_path / "url").exists, "the server is there")
        yield (tmp_path / "url").read_text()
    finally:
        (tmp_path / "hangs").unlink(missing_ok=True)
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("seconds", [8, pytest.param(60, marks=pytest.mark.slow)])
def test_a_storage_that_hangs_costs_no_lease(tmp_path: Path, url: str, seconds: float) -> None:
    headers = {"Authorization": f"Bearer {(tmp_path / 'token').read_text().strip()}"}
    with httpx.Client(base_url=f"{url}{API}", headers=headers, timeout=30) as client:
        leases = leased(client)
        assert append(client, leases[0], 0).status_code == 200
        assert not (tmp_path / "storage").exists(), "writes go where they can hang"
        write_atomically(tmp_path / "hangs", "")
        refused: list[httpx.Response] = []
        over = threading.Event()
        appends = [
            threading.Thread(target=append_until, args=(over, client, leases[number % JOBS], number, refused))
            for number in range(APPENDS)
        ]
        for thread in appends:
            thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            beat(client)
            for lease in leases:
                began = time.monotonic()
                mine = {"job_id": lease["job"]["id"], "epoch": 1, "secret": lease["secret"]}
                renewed = client.post("/leases/renew", json={"ttl": 5, "leases": [mine]})
                assert renewed.is_success, renewed.text
                assert "state" in renewed.json()["leases"][0], renewed.text
                assert time.monotonic() - began < 4, "a renewal waits for nothing else"
            ready = httpx.get(f"{url}/readyz", timeout=10)
            assert ready.status_code == 200
            time.sleep(0.5)
        assert "did not answer" in ready.json()["storage"]
        over.set()
        for thread in appends:
            thread.join(30)
        assert {answer.status_code for answer in refused} == {503}
        assert all(answer.headers["Retry-After"] for answer in refused)
        (tmp_path / "hangs").unlink()
        assert append(client, leases[0], 1).status_code == 200, "the storage is back, and so are its threads"
        assert {client.get(f"/jobs/{lease['job']['id']}").json()["epoch"] for lease in leases} == {1}
        assert httpx.get(f"{url}/readyz").json() == {"status": "ok", "storage": "ok"}


def beat(client: httpx.Client) -> None:
    node = {"id": "n", "host": "h", "total": {"CPU": 8}, "available": {"CPU": 8}}
    assert client.put("/agents/a", json={"incarnation": "1", "nodes": [node]}).is_success


def leased(client: httpx.Client) -> list[dict]:
    beat(client)
    for _ in range(JOBS):
        client.post("/jobs", json={"spec": SPEC})
    asked = [{"incarnation": "1", "ttl": 5, "secret": secrets.token_hex(16)} for _ in range(JOBS)]
    found = [client.post("/agents/a/lease", json=one).json() for one in asked]
    for lease in found:
        client.post(f"/leases/{lease['job']['id']}/1/running", json={"world_size": 1}, headers=shown(lease))
    return found


def append(client: httpx.Client, lease: dict, offset: int, rank: int = 0) -> httpx.Response:
    path = f"/leases/{lease['job']['id']}/1/logs/{rank}"
    return client.post(path, params={"offset": offset}, content=b"x", headers=shown(lease))


def shown(lease: dict) -> dict[str, str]:
    return {"Lease-Secret": lease["secret"]}


def append_until(
    over: threading.Event, client: httpx.Client, lease: dict, rank: int, refused: list[httpx.Response]
) -> None:
    while not over.is_set():
        refused.append(append(client, lease, 0, rank + 1))
        over.wait(1)
