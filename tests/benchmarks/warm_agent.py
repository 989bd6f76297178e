"""Jobs one after the other through one agent, as its users' submissions reach it: ``python warm_agent.py FILE JOBS``.

Prints when each was submitted (Unix seconds), or, imported, starts itself as a contender.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from contender import WORKERS, Contender
from epochal_job import write_spec
from steps import wait_for

PAUSE_SECONDS = 5.0
"""Between the end of a job and the next submission: nobody submits in the moment in which a job ends."""


def start(folder: Path, env: Mapping[str, str], jobs: int) -> Contender:
    command: list[str | Path] = [sys.executable, Path(__file__), write_spec(folder), str(jobs)]
    return Contender(command, folder, env)


def moment(contender: Contender, what: str, index: int) -> float:
    """When the ``index``-th job was ``what`` (Unix seconds), such as ``submitted``, once the contender has said so."""

    def find() -> float | None:
        moments = re.findall(rf"^{what} (\S+)$", contender.log.read_text(errors="replace"), re.MULTILINE)
        return float(moments[index]) if len(moments) > index else None

    return wait_for(f"job {index} {what}", find, contender.alive)


def main(spec: Path, jobs: int) -> None:
    from epochal import settings
    from epochal.agent.in_process import LedgerSource
    from epochal.agent.job_runner import Agent, JobRunner
    from epochal.agent.observer import SilentObserver
    from epochal.agent.outbox import LEASE_SECONDS
    from epochal.agent.submission import submit
    from epochal.catalog.index import check
    from epochal.engine.connection import connect
    from epochal.ledger.states import JobState
    from epochal.spec.load import load_spec

    home = settings.home()
    home.root.mkdir(parents=True, exist_ok=True)
    observer = SilentObserver()
    with LedgerSource.open(home.ledger_url) as ledger, connect(token_path=home.ray_token) as cluster:
        cluster.keep_warm(WORKERS)
        wait_for("warm workers", lambda: sum(cluster.warm.idle().values()) >= WORKERS or None, lambda: True)
        agent = Agent("benchmark", ledger, cluster, home, settings.tracking_uri())
        for _ in range(jobs):
            time.sleep(PAUSE_SECONDS)
            print(f"submitted {time.time()!r}", flush=True)
            job = submit(ledger, home, load_spec(spec, (), [check]), ())
            lease = ledger.lease(agent.name, LEASE_SECONDS, job.id)
            assert lease is not None
            runner = JobRunner(agent, lease, observer)
            job = runner.run() or job
            if (tracking := runner.settle(job)) is not None:
                tracking.close()
            if job.state is not JobState.SUCCEEDED:
                raise SystemExit(f"{job.id} is {job.state}: {job.reason} {job.message}\n{runner.ending.traceback}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
