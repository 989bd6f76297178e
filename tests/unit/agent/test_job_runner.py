"""What a runner makes of a job before it asks for any room."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from epochal.agent.in_process import LedgerSource
from epochal.agent.job_runner import Agent, JobRunner
from epochal.agent.observer import SilentObserver
from epochal.engine.connection import Connection
from epochal.ledger.states import JobState, Reason
from epochal.settings import home
from epochal.spec.load import load_spec

SWEEP = Path(__file__).parents[3] / "jobs" / "sweeps" / "digits-cnn.yaml"
NO_CLUSTER = cast(Connection, None)


def test_a_sweep_that_is_in_the_ledger_already_is_not_trained_as_one_job() -> None:
    home().root.mkdir(parents=True)
    with LedgerSource.open(home().ledger_url) as ledger:
        spec = load_spec(SWEEP).spec
        job = ledger.submit(spec.model_dump(mode="json"), name=spec.name)
        lease = ledger.lease("agent", 30.0, job.id)
        assert lease is not None
        agent = Agent("agent", ledger, NO_CLUSTER, home(), "sqlite:///unused", hands_back=True)
        ended = JobRunner(agent, lease, SilentObserver()).run()
    assert ended is not None
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.USER_ERROR)
    assert "sweeps cannot be run yet" in ended.message
