"""Long polls over real HTTP: agents that wait for work, and readers that come back where they were."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from running_server import SPEC, RunningServer, settings_in

NODES = [{"id": "n1", "host": "127.0.0.1", "total": {"CPU": 4.0}, "available": {"CPU": 4.0}}]
ME = "a/1"


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
    return agent.post("/agents/a/lease", json={"incarnation": "1", "ttl": 60}).json()["job"]["id"]


def told(agent: httpx.Client, job: str, verb: str, **body: Any) -> httpx.Response:
    return agent.post(f"/leases/{job}/1/{verb}", json={"agent": ME, **body})


def logged(agent: httpx.Client, job: str, offset: int, data: bytes, rank: int = 0) -> httpx.Response:
    return agent.post(f"/leases/{job}/1/logs/{rank}", params={"offset": offset, "agent": ME}, content=data)


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
    answer = agent.post("/agents/a/lease", json={"incarnation": "1", "ttl": 60, "wait": 30})
    waited = time.monotonic()
    timer.join()
    assert answer.status_code == 200
    assert (answer.json()["agent"], answer.json()["job"]["state"]) == (ME, "STARTING")
    assert waited - submitted[0] < 5, "it was woken, not timed out"


def test_without_a_job_there_is_nothing_after_the_wait(agent: httpx.Client) -> None:
    began = time.monotonic()
    answer = agent.post("/agents/a/lease", json={"incarnation": "1", "ttl": 60, "wait": 0.3})
    assert (answer.status_code, answer.content) == (204, b"")
    assert time.monotonic() - began >= 0.3


def test_an_agent_that_hung_up_is_given_no_job(server: RunningServer, agent: httpx.Client) -> None:
    with suppress(httpx.ReadTimeout):
        agent.post("/agents/a/lease", json={"incarnation": "1", "ttl": 60, "wait": 20}, timeout=0.3)
    time.sleep(0.2)
    job = submit(server)
    time.sleep(0.5)
    assert server.ledger.job(job).state == "QUEUED"


def test_an_answer_that_got_lost_is_given_again(server: RunningServer, agent: httpx.Client) -> None:
    submit(server)
    submit(server)
    asked = {"incarnation": "1", "ttl": 60, "request": "r1"}
    first, again = (agent.post("/agents/a/lease", json=asked).json() for _ in range(2))
    assert (first["job"]["id"], first["epoch"]) == (again["job"]["id"], again["epoch"])
    other = agent.post("/agents/a/lease", json={**asked, "request": "r2"}).json()
    assert other["job"]["id"] != first["job"]["id"]


def test_an_agent_chooses_no_job_and_is_known(server: RunningServer, agent: httpx.Client) -> None:
    job = submit(server)
    body = {"incarnation": "1", "ttl": 60}
    assert agent.post("/agents/a/lease", json={**body, "job_id": job}).status_code == 400
    unknown = agent.post("/agents/a/lease", json={**body, "incarnation": "never-heard-of"})
    assert (unknown.status_code, unknown.json()["error"]["kind"]) == (409, "ConflictError")
    assert server.ledger.job(job).state == "QUEUED"


def test_a_failed_attempt_is_followed_by_the_same_agent_s_next(server: RunningServer, agent: httpx.Client) -> None:
    job = leased(server, agent)
    failed = {"ttl": 60, "reason": "INFRASTRUCTURE", "message": "rank 1"}
    first, again = (told(agent, job, "again", **failed).json() for _ in range(2))
    assert (first["epoch"], first["agent"], first["job"]["state"]) == (2, ME, "STARTING")
    assert again["epoch"] == 2
    server.admin.post(f"/jobs/{job}/pause")
    answer = agent.post(f"/leases/{job}/2/again", json={"agent": ME, **failed})
    assert answer.status_code == 204
    assert server.ledger.job(job).state == "PAUSED"


def test_two_waiting_agents_get_one_job_once(server: RunningServer, agent: httpx.Client) -> None:
    answers: list[int] = []

    def waits() -> None:
        answer = agent.post("/agents/a/lease", json={"incarnation": "1", "ttl": 60, "wait": 1.5})
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
    assert [told(agent, job, "note", kind="seen", message="x", key="k").is_success for _ in range(2)] == [True, True]
    assert told(agent, job, "saved", step=3, path="checkpoints/step-3").json() == {"status": "ok"}
    (attempt,) = server.admin.get(f"/jobs/{job}/attempts").json()["attempts"]
    assert (attempt["checkpoint_step"], attempt["checkpoint_path"]) == (3, "checkpoints/step-3")
    assert told(agent, job, "renew", ttl=60, progress={"step": 3}).json() == {"state": "RUNNING"}
    server.admin.post(f"/jobs/{job}/stop")
    assert told(agent, job, "renew", ttl=60).json() == {"state": "STOPPING"}
    assert [told(agent, job, "stopped").json()["state"] for _ in range(2)] == ["STOPPED", "STOPPED"]
    over = told(agent, job, "renew", ttl=60)
    assert (over.status_code, over.json()["error"]["kind"]) == (409, "StaleLeaseError")
    attempt = server.admin.get(f"/jobs/{job}/attempts").json()["attempts"][0]
    assert (attempt["outcome"], attempt["world_size"]) == ("STOPPED", 2)
    assert (
        server.admin.get("/overview").json()["recent"][0]["run_url"]
        == "http://127.0.0.1:5000/#/runs/r?workflowType=machine_learning"
    )


def test_only_the_agent_that_holds_a_lease_can_tell_of_it(server: RunningServer, agent: httpx.Client) -> None:
    job = leased(server, agent)
    for path, body in (
        (f"/leases/{job}/1/renew", {"agent": "b/1", "ttl": 60}),
        (f"/leases/{job}/1/renew", {"agent": "a/2", "ttl": 60}),
        (f"/leases/{job}/2/renew", {"agent": ME, "ttl": 60}),
        (f"/leases/{job}/1/finish", {"agent": "b/1", "state": "FAILED", "reason": "USER_ERROR"}),
    ):
        refused = agent.post(path, json=body)
        assert (refused.status_code, refused.json()["error"]["kind"]) == (409, "StaleLeaseError")
    prefix = agent.post(f"/leases/{job[:-2]}/1/renew", json={"agent": ME, "ttl": 60})
    assert prefix.status_code == 404
    assert agent.post(f"/leases/{job}/1/logs/0", params={"agent": "b/1"}, content=b"x").status_code == 409


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
        told(agent, job, "note", kind="checkpoint", message=str(number))
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
    assert told(agent, job, "renew", ttl=60).status_code == 409
    assert agent.put("/agents/a", json={"incarnation": "1", "nodes": NODES}).status_code == 409
