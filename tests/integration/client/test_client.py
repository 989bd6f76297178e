"""The client's verbs against a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from restartable_server import SPEC, PlayedAgent, RestartableServer

from epochal.client import Client
from epochal.client.jobs import JobCalls
from epochal.errors import AuthError, ConflictError, ForbiddenError, NotFoundError, SpecError, UsageError
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Job, WhyKind

Submit = Callable[..., Job]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A spec with code beside it."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "net.py").write_text(f"who = {str(tmp_path)!r}\n")
    (folder / "job.yaml").write_text(
        "version: 1\nname: own\nmodel: {name: mlp}\ndata: {name: digits}\ntrain: {epochs: 1}\ncode: {dir: .}\n"
    )
    return folder / "job.yaml"


def test_a_job_is_queued_as_it_was_checked(client: Client) -> None:
    submitted = client.submit(SPEC, ["priority=70", "train.epochs=2"])
    assert submitted.created
    job = client.job(submitted.id)
    assert (job.state, job.name, job.priority) == (JobState.QUEUED, "small", 70)
    assert job.spec["train"]["epochs"] == 2
    assert job.submitted_by == client.whoami()["user"]
    assert job.origin["environment"]["packages"]["click"]


def test_a_wrong_spec_is_refused_before_anything_is_sent(client: Client) -> None:
    before = len(client.jobs(limit=1000))
    with pytest.raises(SpecError, match=r"train\.epochs"):
        client.submit(SPEC, ["train.epochs=0"])
    assert len(client.jobs(limit=1000)) == before


def test_each_submission_is_a_job_and_a_key_is_one_job(client: Client) -> None:
    assert client.submit(SPEC).id != client.submit(SPEC).id
    first, again = client.submit(SPEC, key="k-1"), client.submit(SPEC, key="k-1")
    assert (first.id, first.created, again.created) == (again.id, True, False)
    with pytest.raises(ConflictError, match="another spec"):
        client.submit(SPEC, ["train.epochs=9"], key="k-1")


def test_one_key_a_hundred_times_at_once_is_one_job(client: Client) -> None:
    prepared = client.prepare(SPEC, ["name=at-once"])
    with ThreadPoolExecutor(16) as pool:
        submitted = list(pool.map(lambda _: client.submit(prepared, key="k-2"), range(100)))
    assert len({one.id for one in submitted}) == 1
    assert [one.created for one in submitted].count(True) == 1
    assert len(client.jobs(name="at-once")) == 1


def test_code_is_sent_once(client: Client, project: Path, agent: PlayedAgent, tmp_path: Path) -> None:
    prepared = client.prepare(project)
    job = client.submit(prepared).job
    assert prepared.package is not None
    assert job.origin["code"] == prepared.package.digest
    packed = prepared.package.path.read_bytes()
    prepared.package.path.unlink()  # it could not be sent again
    assert client.submit(prepared).job.id != job.id
    fetched = agent.ledger.fetch_code(prepared.package.digest, tmp_path / "cache")
    assert fetched.read_bytes() == packed
    assert agent.ledger.fetch_code(prepared.package.digest, tmp_path / "cache") == fetched


def test_a_job_that_has_succeeded_before_is_named(client: Client, agent: PlayedAgent) -> None:
    first = client.submit(SPEC, ["name=once", "train.seed=41"])
    assert first.same_as is None
    agent.carry(first.id)
    again = client.submit(SPEC, ["name=once", "train.seed=41"])
    assert (again.created, again.same_as) == (True, first.id)


def test_jobs_are_found_by_state_name_user_and_queue(client: Client, submit: Submit) -> None:
    job = submit("name=findable", "queue=night")
    client.stop(job.id)
    submit("name=findable")
    assert len(client.jobs(name="findable")) == 2
    assert [one.id for one in client.jobs(name="findable", states=["stopped"])] == [job.id]
    assert [one.id for one in client.jobs(name="findable", queue="night")] == [job.id]
    assert client.jobs(name="findable", user="nobody") == []
    assert len(client.jobs(name="findable", states=[JobState.STOPPED, JobState.QUEUED], limit=1)) == 1


def test_more_jobs_than_a_page_has(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epochal.client.jobs._PAGE", 4)
    prepared = client.prepare(SPEC, ["name=many"])
    made = {client.submit(prepared).id for _ in range(11)}
    found = client.jobs(name="many", limit=1000)
    assert {job.id for job in found} == made
    assert [job.number for job in found] == sorted((job.number for job in found), reverse=True)
    assert [job.id for job in client.jobs(name="many", limit=6)] == [job.id for job in found[:6]]


def test_a_job_is_named_by_id_beginning_or_name(client: Client, submit: Submit) -> None:
    job = submit("name=by-its-name")
    assert client.job("by-its-name").id == client.job(job.id[:-2]).id == job.id
    with pytest.raises(NotFoundError, match="by-its-name"):
        client.job("by-its-nam3")
    with pytest.raises(UsageError):
        client.job("../../tokens")


def test_stop_pause_resume_retry(client: Client, submit: Submit) -> None:
    job = submit("name=changed")
    assert client.pause(job.id, "for lunch").state is JobState.PAUSED
    assert client.job(job.id).message == "for lunch"
    assert client.resume(job.id).state is JobState.QUEUED
    with pytest.raises(ConflictError):
        client.retry(job.id)
    assert client.stop(job.id).state is JobState.STOPPED
    with pytest.raises(ConflictError):
        client.resume(job.id)
    another = client.retry(job.id, "once more")
    assert (another.state, another.origin["retry_of"], another.spec) == (JobState.QUEUED, job.id, job.spec)
    assert [event.kind for event in client.events(job.id)][:2] == ["submitted", "pause_requested"]
    assert next(iter(client.events(another.id))).message == "once more"


def test_why_and_queue(client: Client, agent: PlayedAgent, submit: Submit) -> None:
    agent.appear(cpus=2.0)
    job = submit("name=too-big", "resources.workers=9", "priority=100")
    why = client.why(job.id)
    assert why.kind is WhyKind.NEVER_FITS
    assert why.change == "resources.workers=2"
    entry = next(entry for entry in client.queue() if entry.job.id == job.id)
    assert (entry.position, entry.why.kind) == (1, WhyKind.NEVER_FITS)
    assert [(one.name, one.alive, len(one.nodes)) for one in client.agents()] == [("played", True, 1)]
    client.stop(job.id)
    assert client.why(job.id).kind is WhyKind.ENDED


def test_waiting_ends_with_the_job(client: Client, agent: PlayedAgent, submit: Submit) -> None:
    job = submit("name=waited-for")
    began = time.monotonic()
    assert client.wait(job.id, timeout=0.3).state is JobState.QUEUED
    assert 0.25 < time.monotonic() - began < 5
    threading.Timer(0.2, agent.carry, [job.id]).start()
    assert client.wait("waited-for", timeout=20).state is JobState.SUCCEEDED
    assert client.wait(submit().id, until=[JobState.QUEUED]).state is JobState.QUEUED


def test_logs_of_all_ranks_of_one_and_their_tail(client: Client, agent: PlayedAgent, submit: Submit) -> None:
    job = submit("name=talks", "resources.workers=2")
    lease = agent.lease(job.id)
    agent.ledger.running(lease, 2)
    for rank in (0, 1):
        agent.ledger.append_log(lease, rank, 0, f"first of {rank}\nlast of {rank}\n".encode())
    found = {chunk.rank: chunk.text for chunk in client.logs(job.id)}
    assert found == {0: "first of 0\nlast of 0\n", 1: "first of 1\nlast of 1\n"}
    assert [chunk.text for chunk in client.logs(job.id, rank=1, tail=1)] == ["last of 1\n"]
    assert list(client.logs(job.id, attempt=7)) == []
    agent.ledger.finish(lease, JobState.FAILED, Reason.USER_ERROR, "rank 1: it broke")
    assert len(list(client.logs(job.id, follow=True))) == 2


def test_following_hears_of_everything_while_it_happens(client: Client, agent: PlayedAgent, submit: Submit) -> None:
    job = submit("name=followed")
    heard: list[str] = []
    said: list[str] = []
    threads = [
        threading.Thread(target=lambda: heard.extend(event.kind for event in client.events(job.id, follow=True))),
        threading.Thread(target=lambda: said.extend(chunk.text for chunk in client.logs(job.id, follow=True))),
    ]
    for thread in threads:
        thread.start()
    lease = agent.lease(job.id)
    agent.ledger.running(lease, 1)
    for line in range(5):
        agent.ledger.append_log(lease, 0, 7 * line, f"line {line}\n".encode())
        time.sleep(0.05)
    agent.ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert heard == ["submitted", "leased", "running", "succeeded"]
    assert "".join(said) == "".join(f"line {line}\n" for line in range(5))


def test_following_goes_on_over_a_restart_of_the_server(own_server: RestartableServer) -> None:
    notices: list[str] = []
    client = Client(own_server.url, own_server.token, notice=notices.append)
    job = client.submit(SPEC).job
    heard: list[str] = []
    thread = threading.Thread(target=lambda: heard.extend(event.kind for event in client.events(job.id, follow=True)))
    thread.start()
    time.sleep(0.3)
    own_server.stop()
    time.sleep(1.5)
    own_server.start()
    client.stop(job.id)
    thread.join(20)
    assert not thread.is_alive()
    assert heard == ["submitted", "stop_requested"]
    assert [notice.rpartition(own_server.url)[2].split(";")[0] for notice in notices] == [
        " does not answer", " answers again",
    ]  # fmt: skip


def test_tokens_and_what_they_allow(client: Client, server: RestartableServer, submit: Submit) -> None:
    job = submit("name=the-owners")
    token, secret = client.create_token("bert", "user", name="laptop", ttl_seconds=3600)
    assert secret not in str([one.to_dict() for one in client.tokens()])
    with server.client(secret) as bert:
        assert bert.whoami()["user"] == "bert"
        assert bert.job(job.id).id == job.id
        with pytest.raises(ForbiddenError):
            bert.stop(job.id)
        with pytest.raises(ForbiddenError):
            bert.tokens()
        client.revoke_token(token.id)
        with pytest.raises(AuthError) as caught:
            bert.jobs()
    assert "epochal login" in caught.value.hint
    with server.client("ep_wrong") as nobody, pytest.raises(AuthError):
        nobody.whoami()


def test_quotas(client: Client) -> None:
    quota = client.set_quota("user", "bert", jobs=2, cpus=4.5)
    assert (quota.jobs, quota.cpus, quota.gpus) == (2, 4.5, None)
    assert client.set_quota("queue", "*", gpus=8) in client.quotas()
    client.delete_quota("user", "bert")
    client.delete_quota("queue", "*")
    assert client.quotas() == []


def test_the_overview_counts_jobs(client: Client, submit: Submit) -> None:
    submit()
    assert client.overview()["counts"]["QUEUED"] >= 1


def test_every_verb_is_described() -> None:
    verbs = [value for name, value in vars(JobCalls).items() if callable(value) and not name.startswith("_")]
    assert all(verb.__doc__ for verb in verbs)
    assert JobCalls.wait in verbs
