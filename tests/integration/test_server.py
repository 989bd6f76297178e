"""The server over real HTTP: what each role may do, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import FullJob
from epochal.server import notifier
from running_server import SPEC, RunningServer, settings_in

DIGEST = "0" * 64
NODES = [{"id": "n1", "host": "127.0.0.1", "total": {"CPU": 4.0}, "available": {"CPU": 4.0}}]


@pytest.fixture
def server(tmp_path: Path, ledger_url: str) -> Iterator[RunningServer]:
    with RunningServer(settings_in(tmp_path, ledger_url=ledger_url)) as running:
        yield running


def submit(client: httpx.Client, **changed: Any) -> dict[str, Any]:
    answer = client.post("/jobs", json={"spec": SPEC, **changed})
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def packed(content: bytes = b"SIZE = 3\n") -> tuple[str, bytes]:
    """A code package of one file, and its digest."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("train.py", content)
    line = f"{hashlib.sha256(content).hexdigest()} train.py\n"
    return hashlib.sha256(line.encode()).hexdigest(), made.getvalue()


def kind(answer: httpx.Response) -> str:
    return answer.json()["error"]["kind"]


def test_a_job_is_submitted_and_found(server: RunningServer) -> None:
    ada = server.user("ada")
    made = submit(ada, command=["epochal", "submit"], tags={"team": "vision"}, git_diff="x" * 300_000)
    job = FullJob.from_dict(made["job"])
    assert (made["created"], made["same_as"], job.submitted_by, job.name) == (True, None, "ada", "digits")
    assert len(job.origin["git_diff"]) == 256 * 1024
    assert job.origin["tags"] == {"team": "vision"}
    assert FullJob.from_dict(ada.get(f"/jobs/{job.id}").json()) == job
    listed = ada.get("/jobs").json()
    assert [one["id"] for one in listed["jobs"]] == [job.id]
    assert listed["jobs"][0].keys().isdisjoint(("spec", "origin"))
    assert server.services.ledger.job(job.id) == server.ledger.job("digits")


def test_the_same_key_a_hundred_times_at_once_is_one_job(server: RunningServer) -> None:
    ada = server.user("ada")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: ada.post("/jobs", json={"spec": SPEC, "key": "once"}), range(100)))
    assert {answer.json()["job"]["id"] for answer in answers} == {server.ledger.job("digits").id}
    assert sorted(answer.status_code for answer in answers) == [200] * 99 + [201]
    assert sum(answer.json()["created"] for answer in answers) == 1
    assert len(server.ledger.jobs()) == 1


def test_a_key_of_another_spec_is_a_conflict(server: RunningServer) -> None:
    submit(server.user("ada"), key="k")
    other = server.user("ada").post("/jobs", json={"spec": {**SPEC, "priority": 9}, "key": "k"})
    assert (other.status_code, kind(other)) == (409, "ConflictError")


def test_a_key_is_its_user_s_own(server: RunningServer) -> None:
    """Nobody is told of another's job for having had the same idea, nor can take keys away."""
    ada, grace = server.user("ada"), server.user("grace")
    first, other = submit(ada, key="nightly"), submit(grace, key="nightly")
    assert (first["created"], other["created"]) == (True, True)
    assert [one["job"]["submitted_by"] for one in (first, other)] == ["ada", "grace"]
    again = submit(grace, key="nightly")
    assert (again["created"], again["job"]["id"]) == (False, other["job"]["id"])


def test_what_has_finished_once_is_said_and_not_refused(server: RunningServer) -> None:
    ada = server.user("ada")
    first = submit(ada)["job"]["id"]
    lease = server.ledger.lease("embedded", 60)
    assert lease is not None
    server.ledger.running(lease, world_size=1)
    server.ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
    assert submit(ada)["same_as"] == first


def test_pages_of_jobs_follow_each_other(server: RunningServer) -> None:
    ada = server.user("ada")
    for number in range(7):
        submit(ada, spec={**SPEC, "queue": "night" if number % 2 else "default"})
    seen, before = [], None
    while True:
        page = ada.get("/jobs", params={"limit": 3, **({"before": before} if before else {})}).json()
        seen += [job["number"] for job in page["jobs"]]
        before = page["next"]
        if before is None:
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]
    night = ada.get("/jobs", params={"queue": "night", "limit": 2}).json()
    assert ([job["number"] for job in night["jobs"]], night["next"], night["total"]) == ([6, 4], 4, 3)
    assert ada.get("/jobs", params={"state": ["RUNNING", "PAUSED"]}).json()["jobs"] == []


def test_a_cursor_that_is_too_long_is_answered_too(server: RunningServer) -> None:
    ada = server.user("ada")
    path = "/api/v1/jobs/x/logs?cursor=" + "%F0%9F%98%80" * 60_001  # more than httpx would send
    with closing(HTTPConnection(ada.base_url.netloc.decode(), timeout=30)) as connection:
        connection.request("GET", path, headers={"Authorization": ada.headers["Authorization"]})
        answer = connection.getresponse()
        assert (answer.status, json.load(answer)["error"]["kind"]) == (400, "UsageError")


@pytest.mark.parametrize("path", ["/jobs", "/whoami", "/overview", "/queue", "/agents", "/openapi.json", "/tokens"])
def test_without_a_token_nothing_is_told(server: RunningServer, path: str) -> None:
    for secret in (None, "ep_wrong", "x"):
        answer = server.client(secret).get(path)
        assert (answer.status_code, kind(answer)) == (401, "AuthError")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    answer = server.client("\x7f").get(path)
    assert (answer.status_code, kind(answer)) == (400, "UsageError"), "no header may have that"


def test_a_revoked_or_expired_token_is_refused_at_once(server: RunningServer) -> None:
    made = server.admin.post("/tokens", json={"user": "ada", "role": "user", "name": "laptop"}).json()
    ada = server.client(made["secret"])
    assert ada.get("/whoami").json()["user"] == "ada"
    revoked = server.admin.delete(f"/tokens/{made['token']['id']}")
    assert revoked.json()["revoked_at"]
    assert ada.get("/whoami").status_code == 401
    brief = server.admin.post("/tokens", json={"user": "ada", "role": "user", "ttl_seconds": 0.05}).json()
    time.sleep(0.2)
    assert server.client(brief["secret"]).get("/whoami").status_code == 401


def test_code_is_sent_checked_and_fetched(server: RunningServer) -> None:
    ada, agent = server.user("ada"), server.user("a", "agent")
    digest, content = packed()
    assert ada.head(f"/code/{digest}").status_code == 404
    missing = ada.post("/jobs", json={"spec": {**SPEC, "code": {"dir": "."}}, "code": digest})
    assert (missing.status_code, kind(missing)) == (404, "NotFoundError")
    assert [ada.put(f"/code/{digest}", content=content).status_code for _ in range(2)] == [201, 200]
    assert ada.head(f"/code/{digest}").headers["Content-Length"] == str(len(content))
    assert agent.get(f"/code/{digest}").content == content
    made = submit(ada, spec={**SPEC, "code": {"dir": "."}}, code=digest)
    assert made["job"]["origin"]["code"] == digest
    retried = f"/jobs/{made['job']['id']}/retry"
    ada.post(f"/jobs/{made['job']['id']}/stop")
    assert ada.post(retried).status_code == 200
    server.services.code.delete(digest)
    gone = ada.post(retried)
    assert (gone.status_code, kind(gone)) == (404, "NotFoundError")
    assert "submit the spec again" in gone.json()["error"]["hint"]
    assert [ada.put(f"/code/{digest}", content=content).status_code, ada.post(retried).status_code] == [201, 200]
    unnamed = ada.post("/jobs", json={"spec": {**SPEC, "code": {"dir": "."}}})
    assert (unnamed.status_code, kind(unnamed)) == (400, "UsageError")


class Full(io.BytesIO):
    """On a disk that is full."""

    def write(self, _data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_package_that_the_server_has_no_room_for_is_told(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, content = packed()
    monkeypatch.setattr("epochal.server.routes.code.tempfile.SpooledTemporaryFile", lambda _size: Full())
    answer = server.user("ada").put(f"/code/{digest}", content=content)
    assert (answer.status_code, kind(answer)) == (503, "UnreachableError")
    assert "No space left on device" in answer.text


def test_bad_packages_are_refused_and_not_kept(server: RunningServer, tmp_path: Path) -> None:
    ada = server.user("ada")
    digest, content = packed()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../outside.py", b"x")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(51 * 2**20))
    for sent in (b"", b"no zip", content[:-30], out.getvalue(), bomb.getvalue(), packed(b"other")[1]):
        answer = ada.put(f"/code/{digest}", content=sent)
        assert (answer.status_code, kind(answer)) == (400, "CodeError"), answer.text
    assert ada.head(f"/code/{digest}").status_code == 404
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".zip", ".py")]


@pytest.mark.parametrize(
    "path",
    [
        "/code/..%2F..%2Ftoken",
        "/code/../../token",
        "/code/" + "A" * 64,
        "/leases/..%2f..%2fa/1/logs/0",
        "/leases/../1/logs/0",
    ],
)
def test_no_address_leads_out_of_the_storage(server: RunningServer, path: str) -> None:
    for method in ("GET", "PUT", "POST"):
        assert raw(server, method, f"/api/v1{path}") in (400, 404, 405)


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/..%2fapp.py", "/..%2f..%2fpyproject.toml", "/%2e%2e/app.py"]
)
def test_no_address_leads_out_of_the_page(server: RunningServer, path: str) -> None:
    assert raw(server, "GET", path) == 404


def raw(server: RunningServer, method: str, path: str) -> int:
    """The status of a request whose address no client has tidied up."""
    host, port = server.url.removeprefix("http://").split(":")
    token = server.admin.headers["Authorization"]
    lines = (f"{method} {path} HTTP/1.1", f"Host: {host}", f"Authorization: {token}", "Connection: close", "", "")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode())
        return int(connection.makefile("rb").readline().split()[1])


def test_too_large_bodies_are_refused_while_they_come_in(server: RunningServer) -> None:
    ada = server.user("ada")
    told = ada.post("/jobs", json={"spec": SPEC, "git_diff": "x" * 3_000_000})
    chunked = ada.post(
        "/jobs", content=(b"x" * 65536 for _ in range(100)), headers={"Content-Type": "application/json"}
    )
    for answer in (told, chunked):
        assert (answer.status_code, kind(answer)) == (413, "TooLargeError")
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(200):
            sent += 2**20
            yield bytes(2**20)

    code = ada.put(f"/code/{DIGEST}", content=parts())
    assert (code.status_code, kind(code)) == (413, "TooLargeError")
    assert sent < 150 * 2**20


def test_every_answer_has_its_headers(server: RunningServer) -> None:
    page = server.client(None, "").get("/")
    policy = page.headers["Content-Security-Policy"]
    assert page.status_code == 200
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for path in ("/", "/nope", "/api/v1/jobs", "/healthz", "/metrics"):
        headers = server.client(None, "").get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert re.fullmatch(r"[0-9a-f]{16}", headers["X-Request-Id"])
        assert "server" not in headers
    assert server.admin.get("/jobs").headers["Cache-Control"] == "no-store"


def test_every_file_of_the_page_is_served_and_loads_nothing_from_elsewhere(server: RunningServer) -> None:
    client = server.client(None, "")
    index = client.get("/").text
    named = re.findall(r'(?:src|href)="([^"#]+)"', index)
    assert "app.js" in named
    for name in named:
        assert not name.startswith(("http:", "https:", "//"))
        found = client.get(f"/{name}")
        assert found.status_code == 200
        assert client.get(f"/static/{name}").content == found.content


def test_health_says_what_does_not_answer(server: RunningServer, tmp_path: Path) -> None:
    anyone = server.client(None, "")
    assert anyone.get("/readyz").json() == {"status": "ok", "storage": "ok"}
    (tmp_path / "server").rmdir()
    answer = anyone.get("/readyz")
    assert answer.status_code == 200, "leases are kept without it"
    assert "storage" in answer.json()["storage"]
    assert anyone.get("/healthz").json() == {"status": "ok"}


def test_an_unexpected_failure_is_told_by_its_id_alone(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        raise ZeroDivisionError("inner detail")

    monkeypatch.setattr(server.ledger, "counts", fails)
    answer = server.admin.get("/overview")
    assert (answer.status_code, kind(answer)) == (500, "EpochalError")
    assert "inner detail" not in answer.text
    assert answer.headers["X-Request-Id"] in answer.text
    assert answer.headers["X-Request-Id"] in caplog.text


def test_quotas_are_set_and_taken_away(server: RunningServer) -> None:
    limits = {"jobs": 2, "cpus": 4.5, "gpus": None}
    assert server.admin.put("/quotas/user/*", json=limits).json() == {"kind": "user", "name": "*", **limits}
    assert server.user("ada").get("/quotas").json()["quotas"] == [{"kind": "user", "name": "*", **limits}]
    assert server.admin.delete("/quotas/user/*").status_code == 204
    assert server.admin.delete("/quotas/user/*").status_code == 404


def test_overview_is_all_that_the_page_shows(server: RunningServer) -> None:
    ada, agent = server.user("ada"), server.user("a", "agent")
    ids = [submit(ada)["job"]["id"] for _ in range(3)]
    agent.put("/agents/a", json={"incarnation": "1", "nodes": NODES, "detail": {"version": "0"}})
    secret = "s" * 32
    lease = agent.post("/agents/a/lease", json={"incarnation": "1", "ttl": 60, "secret": secret}).json()
    renewal = {"job_id": lease["job"]["id"], "epoch": 1, "secret": secret, "progress": {"step": 3}}
    agent.post("/leases/renew", json={"ttl": 60, "leases": [renewal]})
    shown = ada.get("/overview").json()
    assert (shown["user"], shown["counts"]["QUEUED"], shown["counts"]["STARTING"]) == ("ada", 2, 1)
    assert [(one["job"]["id"], one["position"]) for one in shown["queue"]] == [(ids[1], 1), (ids[2], 2)]
    assert shown["running"][0]["progress"] == {"step": 3}
    assert "spec" not in shown["running"][0]
    assert [one["name"] for one in shown["agents"]] == ["a"]
    assert server.user("ada").get(f"/jobs/{ids[1]}/why").json()["kind"]


def test_an_agent_whose_job_has_ended_does_not_wait_for_the_watcher_to_see_it(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier, "WATCH_SECONDS", 60)
    monkeypatch.setattr(notifier.Notifier, "changed", lambda self: None)
    agent, asked = server.user("a", "agent"), {"incarnation": "1", "ttl": 60, "secret": "s" * 32}
    agent.put("/agents/a", json={"incarnation": "1", "nodes": [{**NODES[0], "available": {"CPU": 1.0}}]})
    first, second = (submit(server.admin)["job"]["id"] for _ in range(2))
    assert agent.post("/agents/a/lease", json=asked).json()["job"]["id"] == first
    time.sleep(0.5)  # the watcher's last look

    def ends() -> None:
        for verb, body in (("running", {"world_size": 1}), ("finish", {"state": "SUCCEEDED", "reason": "COMPLETED"})):
            agent.post(f"/leases/{first}/1/{verb}", json=body, headers={"Lease-Secret": asked["secret"]})

    timer = threading.Timer(0.3, ends)
    timer.start()
    answer = agent.post("/agents/a/lease", json={**asked, "secret": "t" * 32, "wait": 5})
    timer.join()
    assert answer.status_code == 200
    assert answer.json()["job"]["id"] == second
