"""The agent's side of the ledger over HTTP, against a real server."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from restartable_server import SPEC, PlayedAgent, RestartableServer

from epochal.client import Client, renewal_batcher
from epochal.client.http import Request
from epochal.client.remote_ledger import RemoteLedger
from epochal.errors import (
    AuthError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    StaleLeaseError,
    UnreachableError,
    UsageError,
)
from epochal.ledger.states import EventKind, JobState, Outcome, Reason
from epochal.ledger.values import Job, Renewed
from epochal.urls import free_port

Submit = Callable[..., Job]


def test_a_job_from_lease_to_success(client: Client, agent: PlayedAgent, submit: Submit) -> None:
    agent.appear()
    job = submit("name=whole-life")
    lease = agent.lease(job.id)
    assert (lease.job.spec, lease.epoch, lease.agent) == (job.spec, 1, "played/one")
    assert lease.job.origin["folder"]
    assert agent.ledger.running(lease, 1, {"workers": {"0": "here"}}).state is JobState.RUNNING
    told = {"step": 3, "total_steps": 9, "metrics": {"train/loss": math.nan}}
    assert agent.ledger.renew(lease, 30.0, told).state is JobState.RUNNING
    progress = client.job(job.id).progress
    assert progress is not None
    assert progress["step"] == 3
    assert client.run_page(job.id) is None
    assert agent.ledger.set_run(lease, "run-1", "http://mlflow").run_id == "run-1"
    assert client.run_page(job.id) == "http://mlflow/#/runs/run-1?workflowType=machine_learning"
    agent.ledger.set_data(lease, {"train_samples": 9})
    assert client.job(job.id).data == {"train_samples": 9}
    agent.ledger.saved(lease, 3, "checkpoints/step-3")
    for _ in range(2):
        agent.ledger.note(lease, EventKind.WAITING, "x" * 30_000, {"step": 3}, key="waiting-1")
    done = agent.ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED, "all \x00 well \ud800")
    assert done.state is JobState.SUCCEEDED
    assert agent.ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED).state is JobState.SUCCEEDED
    attempts = agent.ledger.attempts(job.id)
    assert [(one.epoch, one.outcome, one.world_size) for one in attempts] == [(1, Outcome.SUCCEEDED, 1)]
    assert (attempts[0].checkpoint_step, attempts[0].checkpoint_path) == (3, "checkpoints/step-3")
    assert [event.kind for event in client.events(job.id)].count("waiting") == 1
    assert agent.ledger.job(job.id).run_id == "run-1"


def test_a_job_goes_on_only_where_its_checkpoints_are(own_server: RestartableServer) -> None:
    """By what agents say of their storage in heartbeats, over HTTP."""
    here, elsewhere = PlayedAgent(own_server), PlayedAgent(own_server, "elsewhere")
    here.appear(storage="storage-a")
    elsewhere.appear(storage="storage-b")
    job = own_server.client().submit(SPEC).job
    lease = here.ledger.lease(here.owner, 30.0)
    assert lease is not None
    here.ledger.running(lease, 1)
    here.ledger.saved(lease, 3, "checkpoints/step-3")
    here.ledger.retry(lease, Reason.INTERRUPTED, "Ray was lost", lost=True)
    assert elsewhere.ledger.lease(elsewhere.owner, 30.0) is None
    again = here.ledger.lease(here.owner, 30.0)
    assert again is not None
    assert (again.job.id, again.epoch) == (job.id, 2)


def test_a_lease_waits_for_a_job_and_comes_at_once(own_server: RestartableServer) -> None:
    played, client = PlayedAgent(own_server), own_server.client()
    played.appear()
    assert played.ledger.lease(played.owner, 30.0) is None
    began = time.monotonic()
    assert played.ledger.lease(played.owner, 30.0, wait=0.3) is None
    assert time.monotonic() - began >= 0.25
    prepared, times = client.prepare(SPEC), []

    def submit() -> None:
        times.append(time.monotonic())
        client.submit(prepared)

    threading.Timer(0.5, submit).start()
    lease = played.ledger.lease(played.owner, 30.0, wait=10.0)
    assert lease is not None
    assert time.monotonic() - times[0] < 5


def test_a_lease_that_was_taken_away_is_stale(client: Client, agent: PlayedAgent, submit: Submit) -> None:
    job = submit("name=taken-away")
    lease = agent.lease(job.id)
    assert agent.ledger.retry(lease, Reason.INTERRUPTED, "Ray was lost", lost=True).state is JobState.QUEUED
    again = agent.lease(job.id)
    with pytest.raises(StaleLeaseError) as caught:
        agent.ledger.renew(lease, 30.0)
    assert (caught.value.job_id, caught.value.epoch, caught.value.newest) == (job.id, 1, 2)
    for tell in (
        lambda: agent.ledger.running(lease, 1),
        lambda: agent.ledger.note(lease, EventKind.WAITING),
        lambda: agent.ledger.finish(lease, JobState.FAILED, Reason.USER_ERROR),
    ):
        with pytest.raises(StaleLeaseError):
            tell()
    assert agent.ledger.append_log(lease, 0, 0, b"last words\n") == 11
    assert [(chunk.attempt, chunk.text) for chunk in client.logs(job.id)] == [(1, "last words\n")]
    assert agent.ledger.pause(again, Reason.INTERRUPTED).state is JobState.PAUSED


def test_a_failed_attempt_is_followed_by_the_next_at_once(client: Client, agent: PlayedAgent, submit: Submit) -> None:
    job = submit("name=tried-again")
    lease = agent.lease(job.id)
    again = agent.ledger.lease_again(lease, 30.0, Reason.INFRASTRUCTURE, "a worker was lost")
    assert again is not None
    assert (again.epoch, again.agent) == (2, lease.agent)
    client.pause(job.id)
    assert agent.ledger.lease_again(again, 30.0, Reason.INFRASTRUCTURE) is None
    assert client.job(job.id).state is JobState.PAUSED


def test_a_stop_reaches_the_agent_with_its_next_renewal(client: Client, agent: PlayedAgent, submit: Submit) -> None:
    job = submit("name=stopped-live")
    lease = agent.lease(job.id)
    agent.ledger.running(lease, 1)
    assert agent.ledger.renew(lease, 30.0) == Renewed(JobState.RUNNING)
    assert client.stop(job.id).grace == 30.0
    assert agent.ledger.renew(lease, 30.0) == Renewed(JobState.STOPPING, 30.0)
    assert client.stop(job.id, grace=0).grace == 0
    assert agent.ledger.renew(lease, 30.0) == Renewed(JobState.STOPPING, 0.0)
    assert agent.ledger.stopped(lease).state is JobState.STOPPED


def test_renewals_of_many_threads_are_one_request_and_each_has_its_answer(
    client: Client, agent: PlayedAgent, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal_batcher, "_GATHER_SECONDS", 0.5)
    leases = [agent.lease(submit(f"name=renewed-{number}").id) for number in range(4)]
    agent.ledger.finish(leases[3], JobState.FAILED, Reason.USER_ERROR)
    before = requests_for_renewals(agent)
    with ThreadPoolExecutor(4) as threads:
        asked = [
            threads.submit(agent.ledger.renew, lease, 30.0, {"step": number}) for number, lease in enumerate(leases)
        ]
        assert [one.result().state for one in asked[:3]] == [JobState.STARTING] * 3
        assert isinstance(asked[3].exception(), StaleLeaseError)
    assert requests_for_renewals(agent) == before + 1
    assert [(client.job(lease.job_id).progress or {}).get("step") for lease in leases[:3]] == [0, 1, 2]


def test_progress_that_is_refused_costs_no_other_job_its_lease(
    client: Client, agent: PlayedAgent, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal_batcher, "_GATHER_SECONDS", 0.5)
    leases = [agent.lease(submit(f"name=beside-{number}").id) for number in range(2)]
    nested: dict[str, Any] = {}
    for _ in range(70):
        nested = {"in": nested}
    with ThreadPoolExecutor(2) as threads:
        refused = threads.submit(agent.ledger.renew, leases[0], 30.0, nested)
        kept = threads.submit(agent.ledger.renew, leases[1], 30.0, {"step": 5})
        assert isinstance(refused.exception(), UsageError)
        assert kept.result().state is JobState.STARTING
    assert client.job(leases[1].job_id).progress == {"step": 5}


def requests_for_renewals(agent: PlayedAgent) -> float:
    text = agent.ledger._http.send(Request("GET", "/../../metrics")).text
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("epochal_http_requests_total") and "/leases/renew" in line
    )


def test_logs_are_added_once_and_without_gaps(client: Client, agent: PlayedAgent, submit: Submit) -> None:
    job = submit("name=logged")
    lease = agent.lease(job.id)
    append = agent.ledger.append_log
    assert append(lease, 0, 0, b"one\n") == 4
    assert append(lease, 0, 0, b"one\ntwo\n") == 8
    assert append(lease, 0, 4, b"two\n") == 8
    assert append(lease, 0, 100, b"later\n") == 8
    assert append(lease, 0, 8, "drei ü\n".encode()) == 16
    assert "".join(chunk.text for chunk in client.logs(job.id)) == "one\ntwo\ndrei ü\n"


def test_only_an_agent_may_lease(client: Client, server: RestartableServer) -> None:
    _, secret = client.create_token("anna", "user")
    with RemoteLedger(server.url, secret) as ledger, pytest.raises(ForbiddenError):
        ledger.lease("anna/one", 30.0)
    with RemoteLedger(server.url) as ledger, pytest.raises(AuthError):
        ledger.lease("anna/one", 30.0)
    _, secret = client.create_token("cluster", "agent")
    unknown = pytest.raises(ConflictError, match="nothing is known of the agent cluster/one")
    client.submit(SPEC, ["name=waits-for-a-known-one"])
    with RemoteLedger(server.url, secret) as ledger, unknown:
        ledger.lease("cluster/one", 30.0)


def test_code_that_the_server_does_not_have(agent: PlayedAgent, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(NotFoundError):
        agent.ledger.fetch_code("0" * 64, tmp_path_factory.mktemp("cache"))


def test_an_older_attempt_of_a_live_job_is_no_conflict_of_another_kind(agent: PlayedAgent, submit: Submit) -> None:
    lease = agent.lease(submit("name=never-trained").id)
    with pytest.raises(ConflictError):
        agent.ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)


def test_a_server_that_takes_no_word_of_the_data_costs_no_lease(agent: PlayedAgent, submit: Submit) -> None:
    lease = agent.lease(submit("name=of-a-newer-agent").id)
    lease = replace(lease, job=replace(lease.job, id="unknown-1"))  # answered with 404, as a route that is not there
    agent.ledger.set_data(lease, {})
    with pytest.raises(NotFoundError):
        agent.ledger.saved(lease, 1, "checkpoints/step-00000001")


def test_a_server_that_is_away_is_told_soon() -> None:
    began = time.monotonic()
    with RemoteLedger(f"http://127.0.0.1:{free_port()}", "ep_x") as ledger, pytest.raises(UnreachableError):
        ledger.heartbeat("played", "one", [], (), {})
    assert time.monotonic() - began < 5
