"""A real agent that kills itself before or after one chosen write to the ledger. Arguments: URL, token file, order.

The order file may change while the agent runs: `{"job": NAME, "call": "saved", "number": 2, "when": "after"}` means
SIGKILL after the second `saved` of that job was answered; no file means to live.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from epochal import settings
from epochal.agent.job_runner import Agent
from epochal.agent.service import AgentService
from epochal.client.remote_ledger import RemoteLedger
from epochal.engine.connection import connect
from epochal.ledger.values import Lease

WRITES = ("lease", "running", "set_data", "set_run", "saved", "renew", "finish", "lease_again", "stopped")


class Doomed:
    """``JobSource``: a remote ledger whose chosen call is this process's last."""

    def __init__(self, source: RemoteLedger, order: Path) -> None:
        self._source = source
        self._order = order
        self._answered: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._source, name)
        if name not in WRITES:
            return method

        def call(*arguments: Any, **options: Any) -> Any:
            first = arguments[0]
            job = first.job.name if isinstance(first, Lease) else ""
            self._meet(name, "before", job)
            answer = method(*arguments, **options)
            if name == "lease" and answer is not None:
                job = answer.job.name
            self._meet(name, "after", job)
            return answer

        return call

    def _meet(self, name: str, when: str, job: str) -> None:
        """A call that was not answered, which is made again, is the same one."""
        with self._lock:
            number = self._answered[job, name] + 1
            self._answered[job, name] += when == "after"
        order = self._ordered()
        if order is None or (order["call"], order["when"]) != (name, when):
            return
        # Whose lease it will be nobody knows before it is asked for.
        if (name, when) == ("lease", "before") or (order["job"], order["number"]) == (job, number):
            os.kill(os.getpid(), signal.SIGKILL)

    def _ordered(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self._order.read_text()))
        except FileNotFoundError:
            return None


def main(url: str, token_file: Path, order: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    place = settings.home().served
    with (
        RemoteLedger(url, token_file.read_text().strip()) as source,
        connect(token_path=place.ray_token, cpus=2) as cluster,
    ):
        agent = Agent("doomed", Doomed(source, order), cluster, place, settings.tracking_uri())  # type: ignore[arg-type]
        service = AgentService(agent, warm_per_node=2)
        signal.signal(signal.SIGTERM, lambda *_: service.drain())
        service.run()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
