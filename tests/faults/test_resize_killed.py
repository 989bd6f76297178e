"""kill -9 of the agent while its sweep makes room: nothing is lost, and nobody's room is given away twice."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from served import Served, succeeded
from swept import SWEEP, Swept, Trainings, reached
from test_between_writes import Case, DoomedAgents

from epochal.ledger.states import EventKind, JobState
from polling import until


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["it was asked", "the worker has gone"])
def test_an_agent_may_die_while_its_sweep_makes_room(
    tmp_path: Path, trainings: Trainings, moment: Literal["it was asked", "the worker has gone"]
) -> None:
    with Served(tmp_path) as served:
        ledger, slow = served.ledger, (f"env.SLOW_WHILE={served.slow}", "env.SLOW_SECONDS='0.1'")
        served.slow.touch()
        agents = DoomedAgents(served)
        try:
            agents.start()
            sweep = served.client.submit(SWEEP, (*slow, "sweep.trials=12")).id
            served.until(lambda: reached(served.home.job(sweep)) >= 2, "two segments")
            assert [one.world_size for one in ledger.attempts(sweep)] == [2]
            if moment == "the worker has gone":
                agents.doom(Case("running", "before", number=3), "swept")  # the first two: each of its workers started
            urgent = served.submitted("resources.workers=1", "train.steps=100", "priority=90")
            if moment == "it was asked":
                served.until(lambda: ledger.job(sweep).granted == 1, "the request")
                agents.kill()
            agents.await_death()
            assert not [one for one in ledger.events(sweep) if one.kind == EventKind.RESIZED]
            agents.start()
            both = (urgent, sweep)
            served.until(lambda: all(ledger.job(one).state is JobState.RUNNING for one in both), "both train")
            assert [ledger.job(one).granted for one in both] == [1, 1]
            assert ledger.attempts(sweep)[-1].world_size == 1
            served.slow.unlink()
            assert succeeded(served.until_ended(urgent))
            assert succeeded(served.until_ended(sweep))
            until(lambda: all(one.run_id for one in served.client.trials(sweep)), "its trials' runs are known", 60)
            problems = list(Swept.of(served.client, served.tracking_uri, sweep).problems(trainings))
            assert not problems, "\n".join(problems)
            assert [len(ledger.attempts(one)) for one in both] == [1, 2]
            served.until(
                lambda: ledger.agents()[0].nodes[0].available["CPU"] == 2.0, "all of the machine is free again"
            )
        finally:
            agents.stop()
