"""Tokens over real HTTP: what each role may do and see, and where no token is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select
from test_server import DIGEST, kind, submit

from epochal.ledger.database import Database
from epochal.ledger.tables import metadata
from epochal.ledger.values import Role
from epochal.server.settings import FileToken
from running_server import SPEC, RunningServer, settings_in


@pytest.fixture
def server(tmp_path: Path, ledger_url: str) -> Iterator[RunningServer]:
    with RunningServer(settings_in(tmp_path, ledger_url=ledger_url)) as running:
        yield running


ALLOWED: list[tuple[str, str, set[Role]]] = [
    ("GET", "/jobs", set(Role)),
    ("GET", "/overview", set(Role)),
    ("GET", "/quotas", set(Role)),
    ("POST", "/jobs", {Role.USER, Role.ADMIN}),
    ("POST", "/jobs/none/stop", {Role.USER, Role.ADMIN}),
    ("POST", "/jobs/none/retry", {Role.USER, Role.ADMIN}),
    ("POST", "/jobs/none/pause", {Role.USER, Role.ADMIN}),
    ("POST", "/jobs/none/resume", {Role.USER, Role.ADMIN}),
    ("GET", f"/code/{DIGEST}", {Role.USER, Role.ADMIN, Role.AGENT}),
    ("PUT", f"/code/{DIGEST}", {Role.USER, Role.ADMIN}),
    ("GET", "/tokens", {Role.ADMIN}),
    ("POST", "/tokens", {Role.ADMIN}),
    ("DELETE", "/tokens/none", {Role.ADMIN}),
    ("PUT", "/quotas/user/ada", {Role.ADMIN}),
    ("DELETE", "/quotas/user/ada", {Role.ADMIN}),
    ("PUT", "/agents/a", {Role.AGENT, Role.ADMIN}),
    ("POST", "/agents/a/lease", {Role.AGENT, Role.ADMIN}),
    ("POST", "/leases/renew", {Role.AGENT, Role.ADMIN}),
    ("POST", "/leases/none/1/logs/0", {Role.AGENT, Role.ADMIN}),
]


def test_each_role_may_do_its_part_alone(server: RunningServer) -> None:
    clients = {role: server.user("ada", role) for role in Role}
    found = {
        (method, path): {role for role, client in clients.items() if client.request(method, path).status_code != 403}
        for method, path, _ in ALLOWED
    }
    assert found == {(method, path): roles for method, path, roles in ALLOWED}


def test_users_change_their_own_jobs_and_administrators_all(server: RunningServer) -> None:
    ada, grace = server.user("ada"), server.user("grace")
    job = submit(ada)["job"]["id"]
    for verb in ("stop", "pause", "resume", "retry"):
        refused = grace.post(f"/jobs/{job}/{verb}")
        assert (refused.status_code, kind(refused)) == (403, "ForbiddenError")
    assert grace.get(f"/jobs/{job}").status_code == 200
    assert ada.post(f"/jobs/{job}/pause", json={"message": "later"}).json()["state"] == "PAUSED"
    assert ada.post(f"/jobs/{job}/resume").json()["state"] == "QUEUED"
    assert server.admin.post(f"/jobs/{job}/stop").json()["state"] == "STOPPED"
    again = ada.post(f"/jobs/{job}/retry").json()
    assert (again["state"], again["origin"]["retry_of"], again["submitted_by"]) == ("QUEUED", job, "ada")


def test_what_may_be_private_is_its_owner_s_and_the_administrators(server: RunningServer) -> None:
    ada, grace, viewer = server.user("ada"), server.user("grace"), server.user("eve", "viewer")
    agent = server.user("ada", "agent")
    job = submit(ada, spec={**SPEC, "env": {"API": "hunter2"}}, git_diff="+hunter2\n")["job"]["id"]
    for client in (ada, server.admin):
        whole = client.get(f"/jobs/{job}").json()
        assert (whole["spec"]["env"], whole["origin"]["git_diff"]) == ({"API": "hunter2"}, "+hunter2\n")
    for client in (grace, viewer, agent):
        for path in (f"/jobs/{job}", "/jobs", "/queue", f"/jobs/{job}/events", "/overview"):
            assert "hunter2" not in client.get(path).text, path
        seen = client.get(f"/jobs/{job}").json()
        assert seen["spec"]["env"] == {"API": "*** (shown to ada and administrators)"}
        assert seen["origin"]["git_diff"] == "*** (shown to ada and administrators)"


def test_a_token_is_in_no_database_log_or_answer(
    server: RunningServer, ledger_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = server.admin.post("/tokens", json={"user": "canary", "role": "admin"})
    secret = made.json()["secret"]
    client = server.client(secret)
    answers = [client.get(path) for path in ("/whoami", "/tokens", "/overview", "/jobs", "/openapi.json")]
    answers += [client.post("/jobs", json={"spec": SPEC, "key": "k"}), client.get("/jobs/none"), client.get("/nope")]
    answers += [client.post("/jobs", json={"spec": {"name": 1}}), client.put("/code/x"), client.get("/jobs?limit=x")]
    answers += [server.client(server.admin.headers["Authorization"].split()[1], "").get("/metrics")]
    assert made.status_code == 201
    assert not [answer.url for answer in answers if secret in answer.text or secret in str(answer.headers)]
    server.client(secret + "x").get("/jobs")
    assert secret not in caplog.text
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if secret.encode() in path.read_bytes()]
    with closing(Database(ledger_url)) as database, database.read() as connection:
        stored = repr([connection.execute(select(table)).all() for table in metadata.sorted_tables])
    assert made.json()["token"]["id"] in stored
    assert secret not in stored


def test_metrics_are_for_a_token(server: RunningServer) -> None:
    submit(server.admin)
    assert server.client(None, "").get("/metrics").status_code == 401
    text = server.client(server.ledger.create_token("prometheus", "viewer")[1], "").get("/metrics").text
    assert 'epochal_jobs{state="QUEUED"} 1.0' in text
    assert 'epochal_http_requests_total{method="POST",route="/api/v1/jobs",status="201"} 1.0' in text


def test_tokens_in_files_are_as_good_as_others(tmp_path: Path) -> None:
    """Those of a chart's Secret: nobody has to ask the server for one first."""
    for name in ("agent", "prometheus"):
        (tmp_path / name).write_text(f"{name}-" + "x" * 32 + "\n")
        (tmp_path / name).chmod(0o440)
    pool, metrics = (
        FileToken.parse(text.format(tmp_path)) for text in ("pool:agent={}/agent", "prometheus:viewer={}/prometheus")
    )
    with RunningServer(settings_in(tmp_path, more_tokens=(pool, metrics))) as server:
        agent, prometheus = (server.client(one.secret()) for one in (pool, metrics))
        assert agent.get("/whoami").json()["user"] == "pool"
        assert agent.get("/tokens").status_code == 403
        asked = {"incarnation": "1", "ttl": 60, "secret": "5" * 64}
        assert agent.post("/agents/pool/lease", json=asked).status_code == 409, "it has not told of itself yet"
        assert agent.post("/agents/other/lease", json=asked).status_code == 403, "its token is another's"
        assert prometheus.get("/jobs").is_success
        assert prometheus.post("/jobs", json={}).status_code == 403
        assert server.admin.get("/whoami").json()["role"] == "admin"
        assert not server.ledger.tokens()


def test_a_single_user_s_metrics_are_for_this_machine_too(tmp_path: Path) -> None:
    with RunningServer(settings_in(tmp_path, single_user=True)) as server:
        anyone, known = server.client(None, ""), server.client(server.admin.headers["Authorization"].split()[1], "")
        for host in (None, "localhost:8700", "[::1]:8700", "127.0.0.1"):
            assert anyone.get("/metrics", headers={"Host": host} if host else {}).is_success
        rebound, relative = {"Host": "evil.example:8700"}, {"Host": "localhost.evil.example"}
        for headers in (rebound, relative, {"X-Forwarded-For": "192.0.2.7"}, {"Via": "1.1 proxy"}):
            assert anyone.get("/metrics", headers=headers).status_code == 401, headers
            assert known.get("/metrics", headers=headers).is_success
