"""What an agent warns of, as people read it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from restartable_server import PlayedAgent

from epochal.doctor import agents
from epochal.doctor.check import Status
from epochal.engine.warm import not_kept

pytestmark = pytest.mark.usefixtures("connected")


def test_what_an_agent_warns_of_is_told_by_status_and_doctor(
    run: Callable[..., tuple[int, str, str]], agent: PlayedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.appear(warnings=[not_kept("10.0.0.5")])
    told = "node 10.0.0.5 does not keep idle workers: jobs start there within seconds, not at once"
    assert f"warning: agent played: {told}; set RAY_num_workers_soft_limit=0 RAY_" in run("status")[2]
    clock, warned, summed = agents.look()
    assert (clock.status, clock.name) == (Status.OK, "server clock")
    assert (warned.status, warned.name, warned.found) == (Status.WARN, "agent played", told)
    assert warned.advice.startswith("set RAY_num_workers_soft_limit=0 ")
    assert (summed.status, summed.found) == (Status.OK, "alive: played")
    agent.appear()
    assert "warning" not in run("status")[2]
    assert [check.found for check in agents.look()][1:] == ["alive: played"]
    monkeypatch.setenv("EPOCHAL_TOKEN", "ep_wrong")
    (refused,) = agents.look()
    assert (refused.status, refused.name) == (Status.WARN, "agents")


@pytest.mark.parametrize(("off", "said"), [(300, "ahead of"), (-300, "behind")], ids=["ahead", "behind"])
def test_doctor_tells_of_a_clock_that_is_not_the_servers(off: float, said: str, agent: PlayedAgent) -> None:
    agent.appear()
    clock, _ = agents.look(lambda: time.time() + off)
    assert clock.status is Status.WARN
    assert "this machine's clock is " in clock.found
    assert f" s {said} the server's" in clock.found
    assert "time server" in clock.advice
