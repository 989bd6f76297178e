"""kill -9 while a sweep runs: it ends with exactly the trials of one that nobody touched."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from served import Served
from swept import SWEEP, Swept, Trainings, reached

from polling import until


def swept(served: Served, job_id: str) -> Swept:
    """At its end, once MLflow has all of it."""
    served.until_ended(job_id)
    with suppress(AssertionError):  # what is missing the judge says
        until(lambda: all(one.run_id for one in served.client.trials(job_id)), "its trials' runs are known", 60)
    return Swept.of(served.client, served.tracking_uri, job_id)


@pytest.mark.slow
def test_what_was_trained_while_the_server_was_away_is_known_to_the_next_attempt(
    tmp_path: Path, trainings: Trainings
) -> None:
    """Trials have trained beyond the lengths that the ledger knows of, and trials that it does not know have begun."""
    with Served(tmp_path) as served:
        served.slow.touch()
        agent = served.agent("agent-1", (), "--warm", "1", "--cpus", "1")
        slow = (f"env.SLOW_WHILE={served.slow}", "env.SLOW_SECONDS='0.005'")
        job_id = served.client.submit(SWEEP, (*slow, "sweep.trials=12", "sweep.concurrency=1")).id
        served.until(lambda: reached(served.home.job(job_id)) >= 3, "three segments")
        served.server.kill()
        before = reached(served.home.job(job_id))
        served.until(lambda: reached(served.home.job(job_id)) >= before + 8, "eight more")
        agent.kill()
        served.slow.unlink()
        assert sum(one.length > 0 for one in served.ledger.trials(job_id)) < before + 8, "the ledger knows less"
        served.server.start()
        agent.start()
        found = swept(served, job_id)
        assert len(served.ledger.attempts(job_id)) == 2
        problems = list(found.problems(trainings, ordered=True))
        assert not problems, "\n".join(problems)
