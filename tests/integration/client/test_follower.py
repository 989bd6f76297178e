"""What following a job costs the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from epochal.cli.follow import Follower
from epochal.cli.progress import QuietDisplay
from epochal.client import Client
from epochal.client.http import Request
from epochal.ledger.values import Job

Submit = Callable[..., Job]


def test_following_asks_for_nothing_while_nothing_happens(client: Client, submit: Submit) -> None:
    job = submit("name=quiet")
    thread = threading.Thread(target=Follower(client, job.id, QuietDisplay()).follow)
    thread.start()
    time.sleep(0.4)
    before = looks_at_jobs(client)
    time.sleep(1.2)
    assert looks_at_jobs(client) == before
    client.stop(job.id)
    thread.join(5)
    assert not thread.is_alive()


def looks_at_jobs(client: Client) -> list[str]:
    metrics = client._http.send(Request("GET", "/../../metrics")).text.splitlines()
    return [line for line in metrics if line.startswith("epochal_http_requests_total") and "/jobs/{ref}" in line]
