"""One job by an agent whose workers are warm, as one that is submitted finds it: ``python warm_agent.py FILE``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from contender import WORKERS
from steps import wait_for

IDLE_SECONDS = 6.0
"""For which they are left alone first: warm workers import the rest of what a training needs once they are idle."""


def main(spec: Path) -> None:
    from epochal import settings
    from epochal.agent.in_process import LedgerSource
    from epochal.agent.job_runner import Agent, JobRunner
    from epochal.agent.observer import SilentObserver
    from epochal.agent.submission import submit
    from epochal.catalog.index import check
    from epochal.engine.connection import connect
    from epochal.ledger.states import JobState
    from epochal.ledger.values import LEASE_SECONDS
    from epochal.spec.load import load_spec
    from epochal.tracking.connection import connect as connect_tracking

    home = settings.home()
    home.root.mkdir(parents=True, exist_ok=True)
    observer = SilentObserver()
    with LedgerSource.open(home.ledger_url) as ledger, connect(token_path=home.ray_token) as cluster:
        cluster.keep_warm(WORKERS)
        wait_for("warm workers", lambda: sum(cluster.warm.idle().values()) >= WORKERS or None, lambda: True)
        connect_tracking(settings.tracking_uri())  # as an agent does before its first job
        time.sleep(IDLE_SECONDS)
        agent = Agent("benchmark", ledger, cluster, home, settings.tracking_uri())
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
    main(Path(sys.argv[1]))
