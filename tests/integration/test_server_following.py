"""Long polls over real HTTP: agents that wait for work, and readers that come back where they were."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from epochal.agent.kept_secrets import forget_secrets, keep_secret, secret_of, secret_path
from epochal.agent.logs import LogShipper, attempt_logs
from epochal.client.remote_ledger import RemoteLedger
from epochal.files import write_atomically
from epochal.ledger.values import Lease
from epochal.server.routes import following
from running_server import SPEC, RunningServer, settings_in

NODES = [{"id": "n1", "host": "127.0.0.1", "total": {"CPU": 4.0}, "available": {"CPU": 4.0}}]
ME = "a/1"
SECRET = "s" * 32
ASKED = {"incarnation": "1", "ttl": 60, "secret": SECRET}
HOLDER = {"Lease-Secret": SECRET}


@pytest.fixture
def server(tmp_path: Path, ledger_url: str) -> Iterator[RunningServer]:
    with RunningServer(settings_in(tmp_path, ledger_url=ledger_url)) as running:
        yield running


@pytest.fixture
def agent(server: RunningServer) -> httpx.Client:
    client = server.user("a", "agent")
    client.put("/agents/a", json={"incarnation": "1", "nodes": NODES})
    return client


def submit(server: RunningServer) -> str:
    return server.admin.post("/jobs", json={"spec": SPEC}).json()["job"]["id"]


def leased(server: RunningServer, agent: httpx.Client) -> str:
    submit(server)
    return agent.post("/agents/a/lease", json=ASKED).json()["job"]["id"]


def told(agent: httpx.Client, job: str, verb: str, **body: Any) -> httpx.Response:
    return agent.post(f"/leases/{job}/1/{verb}", headers=HOLDER, json=body)


def renewed(agent: httpx.Client, job: str, progress: dict | None = None, secret: str = SECRET) -> dict:
    renewal = {"job_id": job, "epoch": 1, "secret": secret, "progress": progress}
    (answer,) = agent.post("/leases/renew", json={"ttl": 60, "leases": [renewal]}).json()["leases"]
    return answer


def logged(agent: httpx.Client, job: str, offset: int, data: bytes, rank: int = 0) -> httpx.Response:
    return agent.post(f"/leases/{job}/1/logs/{rank}", params={"offset": offset}, headers=HOLDER, content=data)


def later(seconds: float, call: Any) -> threading.Timer:
    timer = threading.Timer(seconds, call)
    timer.start()
    return timer


def test_a_waiting_agent_gets_a_job_as_soon_as_it_is_submitted(server: RunningServer, agent: httpx.Client) -> None:
    submitted: list[float] = []

    def submits() -> None:
        submit(server)
        submitted.append(time.monotonic())

    timer = later(0.3, submits)
    answer = agent.post("/agents/a/lease", json={**ASKED, "wait": 30})
    waited = time.monotonic()
    timer.join()
    assert answer.status_code == 200
    assert (answer.json()["agent"], answer.json()["job"]["state"]) == (ME, "STARTING")
    assert waited - submitted[0] < 5, "it was woken, not timed out"


def test_without_a_job_there_is_nothing_after_the_wait(agent: httpx.Client) -> None:
    began = time.monotonic()
    answer = agent.post("/agents/a/lease", json={**ASKED, "wait": 0.3})
    assert (answer.status_code, answer.content) == (204, b"")
    assert time.monotonic() - began >= 0.3


def test_an_agent_that_hung_up_is_given_no_job(server: RunningServer, agent: httpx.Client) -> None:
    with suppress(httpx.ReadTimeout):
        agent.post("/agents/a/lease", json={**ASKED, "wait": 20}, timeout=0.3)
    time.sleep(0.2)
    job = submit(server)
    time.sleep(0.5)
    assert server.ledger.job(job).state == "QUEUED"


def test_an_answer_that_got_lost_is_given_again(server: RunningServer, agent: httpx.Client) -> None:
    submit(server)
    submit(server)
    first, again = (agent.post("/agents/a/lease", json=ASKED).json() for _ in range(2))
    assert (first["job"]["id"], first["epoch"]) == (again["job"]["id"], again["epoch"])
    other = agent.post("/agents/a/lease", json={**ASKED, "secret": "t" * 32}).json()
    assert other["job"]["id"] != first["job"]["id"]


def test_an_agent_chooses_no_job_and_is_known(server: RunningServer, agent: httpx.Client) -> None:
    job = submit(server)
    assert agent.post("/agents/a/lease", json={**ASKED, "job_id": job}).status_code == 400
    unknown = agent.post("/agents/a/lease", json={**ASKED, "incarnation": "never-heard-of"})
    assert (unknown.status_code, unknown.json()["error"]["kind"]) == (409, "ConflictError")
    assert server.ledger.job(job).state == "QUEUED"


def test_a_failed_attempt_is_followed_by_the_same_agent_s_next(server: RunningServer, agent: httpx.Client) -> None:
    job = leased(server, agent)
    failed = {"ttl": 60, "reason": "INFRASTRUCTURE", "message": "rank 1"}
    first, again = (told(agent, job, "again", **failed).json() for _ in range(2))
    assert (first["epoch"], first["agent"], first["job"]["state"]) == (2, ME, "STARTING")
    assert again["epoch"] == 2
    server.admin.post(f"/jobs/{job}/pause")
    answer = agent.post(f"/leases/{job}/2/again", headers=HOLDER, json=failed)
    assert answer.status_code == 204
    assert server.ledger.job(job).state == "PAUSED"


def test_two_waiting_agents_get_one_job_once(server: RunningServer, agent: httpx.Client) -> None:
    answers: list[int] = []

    def waits() -> None:
        own = secrets.token_hex(16)
        answer = agent.post("/agents/a/lease", json={**ASKED, "secret": own, "wait": 5})
        answers.append(answer.status_code)

    threads = [threading.Thread(target=waits) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    submit(server)
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 204, 204, 204]


def test_a_life_of_a_job_over_http(server: RunningServer, agent: httpx.Client) -> None:
    job = leased(server, agent)
    assert told(agent, job, "running", world_size=2).json()["state"] == "RUNNING"
    assert told(agent, job, "run", run_id="r", tracking_uri="http://127.0.0.1:5000").json()["run_id"] == "r"
    assert [told(agent, job, "note", kind="waiting", message="x", key="k").is_success for _ in range(2)] == [True, True]
    assert told(agent, job, "saved", step=3, path="checkpoints/step-3").json() == {"status": "ok"}
    (attempt,) = server.admin.get(f"/jobs/{job}/attempts").json()["attempts"]
    assert (attempt["checkpoint_step"], attempt["checkpoint_path"]) == (3, "checkpoints/step-3")
    assert renewed(agent, job, {"step": 3}) == {"state": "RUNNING", "grace": None, "requested": 0, "granted": 1}
    server.admin.post(f"/jobs/{job}/stop")
    assert renewed(agent, job) == {"state": "STOPPING", "grace": 30.0, "requested": 0, "granted": 1}
    assert [told(agent, job, "stopped").json()["state"] for _ in range(2)] == ["STOPPED", "STOPPED"]
    over = told(agent, job, "running", world_size=2)
    assert (over.status_code, over.json()["error"]["kind"]) == (409, "StaleLeaseError")
    assert renewed(agent, job)["error"]["kind"] == "StaleLeaseError"
    attempt = server.admin.get(f"/jobs/{job}/attempts").json()["attempts"][0]
    assert (attempt["outcome"], attempt["world_size"]) == ("STOPPED", 2)
    assert (
        server.admin.get("/overview").json()["recent"][0]["run_url"]
        == "http://127.0.0.1:5000/#/runs/r?workflowType=machine_learning"
    )


def test_a_stream_tells_of_each_event_as_it_happens_and_ends_with_the_job(
    server: RunningServer, agent: httpx.Client
) -> None:
    job = leased(server, agent)
    assert server.admin.get("/jobs/none/events/stream").status_code == 404
    with server.admin.stream("GET", f"/jobs/{job}/events/stream") as response:
        pages = (json.loads(line) for line in response.iter_lines() if line)
        assert [event["kind"] for event in next(pages)["events"]] == ["submitted", "leased"]
        told(agent, job, "running", world_size=2)
        page = next(pages)
        assert ([event["kind"] for event in page["events"]], page["done"]) == (["running"], False)
        told(agent, job, "finish", state="SUCCEEDED", reason="COMPLETED")
        page = next(pages)
        assert ([event["kind"] for event in page["events"]], page["done"]) == (["succeeded"], True)
        assert list(pages) == []
    after = page["events"][-1]["id"]
    only = server.admin.get(f"/jobs/{job}/events/stream", params={"after": after})
    assert json.loads(only.text) == {"events": [], "done": True}


def test_a_stream_of_a_job_that_rests_asks_nothing_of_the_ledger(
    server: RunningServer, agent: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    follow = server.ledger.follow
    monkeypatch.setattr(following, "_QUIET_SECONDS", 0.01)
    monkeypatch.setattr(type(server.ledger), "follow", lambda _, *asked: looks.append(asked) or follow(*asked))
    job = leased(server, agent)
    with server.admin.stream("GET", f"/jobs/{job}/events/stream") as response:
        lines = response.iter_lines()
        assert [event["kind"] for event in json.loads(next(lines))["events"]] == ["submitted", "leased"]
        assert not any(next(lines) for _ in range(100))  # of the lease the watcher tells a moment later
        looks.clear()
        assert not any(next(lines) for _ in range(100))
        assert looks == []
        told(agent, job, "running", world_size=2)
        assert [event["kind"] for event in json.loads(next(filter(None, lines)))["events"]] == ["running"]


def test_only_who_shows_its_secret_can_tell_of_an_attempt(server: RunningServer, agent: httpx.Client) -> None:
    """Not another agent, nor an administrator, while it lasts or afterwards; nor may an agent do what users do."""
    job = leased(server, agent)
    logged(agent, job, 0, b"mine\n")
    other, admin = server.user("b", "agent"), server.admin
    asked = [
        ("running", {"world_size": 1}),
        ("run", {"run_id": "r", "tracking_uri": "http://elsewhere"}),
        ("saved", {"step": 3, "path": "x"}),
        ("note", {"kind": "waiting"}),
        ("finish", {"state": "FAILED", "reason": "USER_ERROR"}),
        ("retry", {"reason": "INFRASTRUCTURE"}),
        ("again", {"ttl": 60, "reason": "INFRASTRUCTURE"}),
        ("pause", {}),
        ("stopped", {}),
        ("logs/0?offset=5", None),
    ]
    before = server.ledger.job(job)
    for _ in range(2):
        for client in (other, admin, agent):
            assert renewed(client, job, secret="w" * 32)["error"]["kind"] == "ConflictError"
            for verb, body in asked:
                wrong = {"Lease-Secret": "w" * 32}
                answer = client.post(f"/leases/{job}/1/{verb}", json=body, headers=wrong)
                assert (answer.status_code, answer.json()["error"]["kind"]) == (409, "ConflictError"), verb
                assert client.post(f"/leases/{job}/1/{verb}", json=body).status_code == 400
        for client in (other, agent):
            refused = [client.post(f"/jobs/{job}/{verb}").status_code for verb in ("stop", "pause", "resume", "retry")]
            assert refused == [403] * 4
        assert server.ledger.job(job) == before
        assert server.admin.get(f"/jobs/{job}/logs").json()["chunks"][0]["text"] == "mine\n"
        assert told(agent, job, "finish", state="FAILED", reason="USER_ERROR").json()["state"] == "FAILED"
        before = server.ledger.job(job)
    assert logged(agent, job, 5, b"late\n").json() == {"next": 10}


def test_an_attempt_that_is_not_there_is_stale(server: RunningServer, agent: httpx.Client) -> None:
    """A ledger that was restored from a backup knows less than its agents do."""
    job = leased(server, agent)
    later = agent.post(f"/leases/{job}/2/running", headers=HOLDER, json={"world_size": 1})
    assert (later.status_code, later.json()["error"]["kind"]) == (409, "StaleLeaseError")
    unknown = agent.post(f"/leases/{job[:-2]}/1/running", headers=HOLDER, json={"world_size": 1})
    assert unknown.status_code == 404


def test_an_agent_s_token_is_for_its_name_alone(server: RunningServer, agent: httpx.Client) -> None:
    job = submit(server)
    other = server.user("b", "agent")
    refused = [
        other.put("/agents/a", json={"incarnation": "2", "nodes": NODES}),
        other.post("/agents/a/lease", json=ASKED),
    ]
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["kind"]) == (403, "ForbiddenError")
        assert "made out to the agent b, not to a" in answer.json()["error"]["message"]
    assert [one.incarnation for one in server.ledger.agents()] == ["1"]
    assert server.ledger.job(job).state == "QUEUED"


def test_an_agent_that_is_started_again_ships_what_its_attempt_has_printed(
    server: RunningServer, agent: httpx.Client, tmp_path: Path
) -> None:
    submit(server)
    with RemoteLedger(server.url, agent.headers["Authorization"].removeprefix("Bearer ")) as source:
        lease = source.lease(ME, 60.0)
        assert lease is not None
        keep_secret(tmp_path, lease)
        assert secret_path(tmp_path, 1).stat().st_mode & 0o777 == 0o600
        write_atomically(attempt_logs(tmp_path, 1) / "rank-0.log", "last words\n")
        forget_secrets(tmp_path, 1)
        assert secret_of(tmp_path, 1) == lease.secret, "its logs are not shipped"
        agent.put("/agents/a", json={"incarnation": "2", "nodes": NODES})
        assert server.ledger.job(lease.job_id).state == "QUEUED"

        again = Lease(source.job(lease.job_id), 1, "a/2", 0.0, secret_of(tmp_path, 1))
        LogShipper(source, again, tmp_path).finish()
        assert server.admin.get(f"/jobs/{lease.job_id}/logs").json()["chunks"][0]["text"] == "last words\n"
        forget_secrets(tmp_path, 1)
        assert not secret_path(tmp_path, 1).exists()
        assert lease.secret not in repr(lease)


def test_events_are_followed_from_where_the_reader_was(server: RunningServer, agent: httpx.Client) -> None:
    job = leased(server, agent)
    seen: list[int] = []
    done = threading.Event()

    def reads() -> None:
        """Hangs up again and again in the midst of waiting."""
        reader, turn = server.user("v", "viewer"), 0
        while not done.is_set():
            turn += 1
            with suppress(httpx.ReadTimeout):
                query = {"after": seen[-1] if seen else 0, "wait": 10, "limit": 3}
                page = reader.get(f"/jobs/{job}/events", params=query, timeout=0.2 if turn % 3 else 20).json()
                seen.extend(event["id"] for event in page["events"])
                if page["done"]:
                    return

    thread = threading.Thread(target=reads)
    thread.start()
    told(agent, job, "running", world_size=1)
    for number in range(30):
        told(agent, job, "note", kind="waiting", message=str(number))
        time.sleep(0.02)
    told(agent, job, "finish", state="SUCCEEDED", reason="COMPLETED")
    thread.join(30)
    done.set()
    assert not thread.is_alive()
    assert seen == [event.id for event in server.ledger.events(job)]
    assert len(seen) == 34


def test_logs_that_are_cut_off_and_go_on_lose_and_double_nothing(server: RunningServer, agent: httpx.Client) -> None:
    job = leased(server, agent)
    told(agent, job, "running", world_size=2)
    wanted = {rank: "".join(f"rank {rank} läuft {number}\n" for number in range(400)) for rank in (0, 1)}
    seen = {0: "", 1: ""}

    def reads() -> None:
        reader, cursor, turn = server.user("v", "viewer"), "", 0
        while True:
            turn += 1
            with suppress(httpx.ReadTimeout):
                query = {"cursor": cursor, "wait": 10, "limit_bytes": 1024}
                page = reader.get(f"/jobs/{job}/logs", params=query, timeout=0.05 if turn % 5 == 0 else 20).json()
                cursor = page["cursor"]
                for chunk in page["chunks"]:
                    assert chunk["offset"] == len(seen[chunk["rank"]].encode())
                    seen[chunk["rank"]] += chunk["text"]
                if page["done"]:
                    return

    thread = threading.Thread(target=reads)
    thread.start()
    for rank, text in wanted.items():
        raw, held, sent = text.encode(), 0, 0
        while held < len(raw):
            start = max(0, held - 40) if sent % 3 == 0 else held  # what it is unsure of, it sends again
            answer = logged(agent, job, start, raw[start : held + 333], rank)
            held, sent = answer.json()["next"], sent + 1
    told(agent, job, "finish", state="SUCCEEDED", reason="COMPLETED")
    thread.join(40)
    assert not thread.is_alive()
    assert seen == wanted


def test_a_gap_in_a_log_says_where_to_go_on(server: RunningServer, agent: httpx.Client) -> None:
    job = leased(server, agent)
    assert logged(agent, job, 0, b"one").json() == {"next": 3}
    gap = logged(agent, job, 9, b"two")
    assert (gap.status_code, gap.json()["next"], gap.json()["error"]["kind"]) == (409, 3, "ConflictError")


def test_logs_come_after_the_job_has_ended_too(server: RunningServer, agent: httpx.Client) -> None:
    job = leased(server, agent)
    told(agent, job, "running", world_size=1)
    told(agent, job, "finish", state="FAILED", reason="USER_ERROR", message="rank 0: no")
    assert logged(agent, job, 0, b"Traceback\n").json() == {"next": 10}
    page = server.admin.get(f"/jobs/{job}/logs", params={"tail": 5}).json()
    assert (page["chunks"][0]["text"], page["done"]) == ("Traceback\n", True)


def test_another_server_of_the_same_ledger_is_heard(
    server: RunningServer, agent: httpx.Client, tmp_path: Path, ledger_url: str
) -> None:
    job = leased(server, agent)
    with RunningServer(settings_in(tmp_path, ledger_url=ledger_url)) as other:
        newest = other.admin.get(f"/jobs/{job}/events").json()["events"][-1]["id"]
        timer = later(0.5, lambda: told(agent, job, "running", world_size=1))
        query = {"after": newest, "wait": 30}
        events = other.admin.get(f"/jobs/{job}/events", params=query).json()["events"]
        assert [event["kind"] for event in events] == ["running"]
        timer.join()
        timer = later(0.5, lambda: logged(agent, job, 0, b"hello\n"))
        page = other.admin.get(f"/jobs/{job}/logs", params={"wait": 30}).json()
        assert page["chunks"][0]["text"] == "hello\n"
        timer.join()


def test_a_new_incarnation_takes_the_old_ones_place(server: RunningServer, agent: httpx.Client) -> None:
    job = leased(server, agent)
    agent.put("/agents/a", json={"incarnation": "2", "nodes": NODES})
    assert server.ledger.job(job).state == "QUEUED"
    assert renewed(agent, job)["error"]["kind"] == "StaleLeaseError"
    assert agent.put("/agents/a", json={"incarnation": "1", "nodes": NODES}).status_code == 409
