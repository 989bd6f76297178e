"""A hundred agents and a thousand followers of one server, simulated in one thread: they ask, and train nothing.

An agent has one node with 16 CPUs. It sends heartbeats, leases as long as it has room, tells that each job runs, renews
its lease, and ends it after a while. A follower waits for a job's events, over and over.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from epochal.agent.outbox import RENEW_SECONDS
from epochal.ledger.json_values import seconds_of
from epochal.ledger.values import LEASE_SECONDS

CPUS = 16.0
HEARTBEAT_SECONDS, WAIT_SECONDS = 2.5, 25
WHY_SECONDS = 3.0
JOB_SECONDS = 40.0
"""On average. How long one takes yet does not depend on how long it has taken, so every minute is like any other."""


class Connection:
    """HTTP/1.1 over one kept connection: a client library would cost more than the server under test."""

    def __init__(self, url: str, token: str) -> None:
        self._where = urlsplit(url)
        self._token = token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.status = 0

    async def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        reader = await self._send(method, path, body, headers)
        self.status, head = await self._head(reader)
        size = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
        answer = await reader.readexactly(size)
        return self.status, json.loads(answer) if answer else None

    async def lines(self, path: str) -> AsyncIterator[bytes]:
        """Those of an answer that goes on (a chunk of ours is a line), as they come."""
        reader = await self._send("GET", path)
        self.status, _ = await self._head(reader)
        while self.status == 200 and (size := int(await reader.readuntil(b"\r\n"), 16)):
            line = await reader.readexactly(size + 2)
            if line.strip():
                yield line

    async def _head(self, reader: asyncio.StreamReader) -> tuple[int, str]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        return int(head.split(" ", 2)[1]), head

    async def _send(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> asyncio.StreamReader:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._where.hostname, self._where.port)
        reader, writer = self._streams
        content = b"" if body is None else json.dumps(body).encode()
        said = {"Host": self._where.netloc, "Authorization": f"Bearer {self._token}", "Content-Length": len(content)}
        kind = {"Content-Type": "application/json"} if body is not None else {}
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**said, **kind, **(headers or {})}.items())
        writer.write(f"{method} /api/v1{path} HTTP/1.1\r\n{lines}\r\n".encode() + content)
        return reader

    def close(self) -> None:
        """The next question opens another one: the server ends those that are idle."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


@dataclass
class Seen:
    """What the crowd met: seconds that each kind of question took, and how often what went wrong."""

    took: dict[str, list[float]] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)

    def clear(self) -> None:
        self.took.clear()


class Agent:
    def __init__(self, url: str, name: str, token: str, seen: Seen) -> None:
        self._url, self._name, self._token, self._seen = url, name, token, seen
        self._held: dict[tuple[str, int], float] = {}
        self._running: dict[tuple[str, int], str] = {}
        self._told_free, self._told_held = 0.0, set[tuple[str, int]]()
        self._more_room_at, self._heard_at = 0.0, 0.0
        self._leasing = Connection(url, token)

    async def run(self) -> None:
        await asyncio.sleep(random.uniform(0, HEARTBEAT_SECONDS))  # agents were not started in the same moment
        await self._beat(Connection(self._url, self._token))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._heartbeats())
            tasks.create_task(self._renewals())
            while True:
                await self._lease(tasks)

    async def _heartbeats(self) -> None:
        connection = Connection(self._url, self._token)
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self._beat(connection)

    async def _renewals(self) -> None:
        """Of all its jobs at once, as agents send them."""
        connection, progress = Connection(self._url, self._token), {"step": 1, "metrics": {"train/loss": 0.5}}
        await asyncio.sleep(random.uniform(0, RENEW_SECONDS))
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            leases = [
                {"job_id": job_id, "epoch": epoch, "secret": secret, "progress": progress}
                for (job_id, epoch), secret in self._running.items()
            ]
            if not leases:
                connection.close()
                continue
            body = {"ttl": LEASE_SECONDS, "leases": leases}
            answer = await self._timed("renew", connection, "POST", "/leases/renew", body)
            for one in answer["leases"] if answer else ():
                if "error" in one:
                    self._note(409, "renew")

    async def _beat(self, connection: Connection) -> None:
        free = CPUS - sum(self._held.values())
        has_more = free > self._told_free
        if has_more:
            self._more_room_at = time.perf_counter()
        self._told_free, self._told_held = free, set(self._held)
        node = {"id": "n", "host": self._name, "total": {"CPU": CPUS}, "available": {"CPU": free}}
        body = {"incarnation": "1", "nodes": [node], "held": [list(key) for key in self._held]}
        await self._timed("heartbeat", connection, "PUT", f"/agents/{self._name}", body)
        if has_more:
            self._heard_at = time.perf_counter()

    async def _lease(self, tasks: asyncio.TaskGroup) -> None:
        secret = secrets.token_urlsafe(32)
        body = {"incarnation": "1", "ttl": LEASE_SECONDS, "wait": WAIT_SECONDS, "secret": secret}
        began = time.perf_counter()
        status, lease = await self._leasing.ask("POST", f"/agents/{self._name}/lease", body)
        if status != 200:
            self._note(status, "lease", good=(200, 204))
            return
        # An agent that is full asks too, and waits until it has told of room, and the server has heard of it.
        told, ended = max(began, self._more_room_at), time.perf_counter()
        self._seen.took.setdefault("room to lease", []).append(ended - told)
        self._seen.took.setdefault("lease decision", []).append(ended - max(told, self._heard_at))
        resources = lease["job"]["spec"]["resources"]
        taken = resources["workers"] * resources["cpus_per_worker"]
        self._told_free -= taken
        self._held[lease["job"]["id"], lease["epoch"]] = taken
        tasks.create_task(self._carry(lease, secret))

    async def _carry(self, lease: Mapping[str, Any], secret: str) -> None:
        connection, key = Connection(self._url, self._token), (lease["job"]["id"], lease["epoch"])
        workers = lease["job"]["spec"]["resources"]["workers"]
        path, shown = f"/leases/{key[0]}/{key[1]}", {"Lease-Secret": secret}
        await self._timed("running", connection, "POST", f"{path}/running", {"world_size": workers}, shown)
        connection.close()
        self._running[key] = secret
        await asyncio.sleep(random.expovariate(1 / JOB_SECONDS))
        del self._running[key]
        is_free = key not in self._told_held  # at once, where no heartbeat has told of its share
        if is_free:
            self._told_free += self._held[key]
            self._more_room_at = time.perf_counter()
        end = {"state": "SUCCEEDED", "reason": "COMPLETED"}
        await self._timed("finish", connection, "POST", f"{path}/finish", end, shown)
        if is_free:
            self._heard_at = time.perf_counter()
        del self._held[key]
        connection.close()

    async def _timed(self, what: str, connection: Connection, *question: Any) -> Any:
        """The answer; asked again, as agents do, where the server says that it has no time (503)."""
        began, status, answer = time.perf_counter(), 503, None
        while status == 503:
            status, answer = await connection.ask(*question)
            self._note(status, what)
            if status == 503:
                await asyncio.sleep(1)
        self._seen.took.setdefault(what, []).append(time.perf_counter() - began)
        return answer if status == 200 else None

    def _note(self, status: int, what: str, good: tuple[int, ...] = (200,)) -> None:
        if status not in good:
            name = f"{what}: {status}"
            self._seen.wrong[name] = self._seen.wrong.get(name, 0) + 1


async def ask_why(url: str, token: str, job_id: str, seen: Seen) -> None:
    """As the page of a job that waits does."""
    connection = Connection(url, token)
    while True:
        await asyncio.sleep(WHY_SECONDS)
        began = time.perf_counter()
        status, _ = await connection.ask("GET", f"/jobs/{job_id}/why")
        seen.took.setdefault("why", []).append(time.perf_counter() - began)
        if status != 200:
            seen.wrong[f"why: {status}"] = seen.wrong.get(f"why: {status}", 0) + 1


async def follow(url: str, token: str, job_id: str, seen: Seen) -> None:
    after, done = 0, False
    while not done:
        connection = Connection(url, token)
        async for line in connection.lines(f"/jobs/{job_id}/events/stream?after={after}"):
            page = json.loads(line)
            after, done = max([after, *(event["id"] for event in page["events"])]), page["done"]
            seen.took.setdefault("follow", []).extend(time.time() - seconds_of(event["at"]) for event in page["events"])
        connection.close()
        if connection.status != 200:
            seen.wrong[f"follow: {connection.status}"] = seen.wrong.get(f"follow: {connection.status}", 0) + 1
        if not done:
            await asyncio.sleep(1)
