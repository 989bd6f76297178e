"""What following a job costs the server, and when it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from restartable_server import PlayedAgent
from test_client_sweeps import SWEEP

from epochal.cli.follow import Follower
from epochal.cli.progress import QuietDisplay
from epochal.client import Client
from epochal.client.http import Request
from epochal.ledger.lease_operations import MOST_LOSSES
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import Job
from polling import until

Submit = Callable[..., Job]


def test_following_asks_for_nothing_while_nothing_happens(client: Client, submit: Submit) -> None:
    job = submit("name=quiet")
    thread = threading.Thread(target=Follower(client, job.id, QuietDisplay()).follow)
    thread.start()

    def asks_for_nothing() -> bool:
        before = looks_at_jobs(client)
        time.sleep(1.2)
        return looks_at_jobs(client) == before

    until(lambda: "epochal_long_polls 0.0" not in metrics(client), "it waits for news")
    until(asks_for_nothing, "it has looked at all that there was")
    client.stop(job.id)
    thread.join(20)
    assert not thread.is_alive()


class Notices(QuietDisplay):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


def test_it_ends_where_the_ledger_pauses_the_job_and_not_where_a_user_does(
    client: Client, agent: PlayedAgent, submit: Submit
) -> None:
    job, shown = submit("name=loses"), Notices()
    with ThreadPoolExecutor(1) as threads:
        following = threads.submit(Follower(client, job.id, shown).follow)
        client.pause(job.id)
        until(lambda: shown.texts, "the pause is told")
        client.resume(job.id)
        for _ in range(MOST_LOSSES):
            agent.ledger.running(lease := agent.lease(job.id), 1)
            agent.ledger.retry(lease, Reason.INFRASTRUCTURE, "its Ray went down", lost=True)
        try:
            ended = following.result(timeout=20)
        finally:
            client.stop(job.id)
    assert ended.state is JobState.PAUSED
    assert "attempts in a row were lost" in shown.texts[-2]
    assert shown.texts[-1] == f"it goes on with `epochal resume {job.id}`"


def test_each_new_best_of_a_sweep_is_told(client: Client, agent: PlayedAgent) -> None:
    lease, shown = agent.lease(client.submit(SWEEP).job.id), Notices()
    agent.ledger.running(lease, 1)
    follower = Follower(client, lease.job_id, shown, with_logs=False)
    job = client.job(lease.job_id)
    bests = [None, {"trial": 3, "value": 0.5}, {"trial": 3, "value": 0.5}, {"trial": 7, "value": 0.75}]
    for done, best in enumerate(bests):
        agent.ledger.renew(lease, 30.0, {"trials": 8, "done": done, "running": 2, "failed": 0, "best": best})
        follower._look_at = 0.0
        follower._looked(job)
    bars = [f"[{'#' * 3 * done}{'-' * (24 - 3 * done)}] {done}/8 trials, 2 running" for done in (1, 3)]
    assert shown.texts == [f"{bars[0]}; best 0.5 (trial 3)", f"{bars[1]}; best 0.75 (trial 7)"]


def metrics(client: Client) -> str:
    return client._http.send(Request("GET", "/../../metrics")).text


def looks_at_jobs(client: Client) -> list[str]:
    return [
        line
        for line in metrics(client).splitlines()
        if line.startswith("epochal_http_requests_total") and "/jobs/{ref}" in line
    ]
