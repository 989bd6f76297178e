"""Whether any cluster could ever hold a job, as `submit` and `plan` tell it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from restartable_server import SPEC, PlayedAgent

from epochal.client import Client
from epochal.ledger.capacity import Group
from epochal.ledger.values import WhyKind

pytestmark = pytest.mark.usefixtures("connected", "no_groups")


@pytest.fixture
def no_groups(agent: PlayedAgent) -> Iterator[None]:
    """Before, and after: the server is that of other tests too."""
    agent.appear()
    agent.ledger.provision(agent.owner, [])
    yield
    agent.ledger.provision(agent.owner, [])


def test_a_job_that_no_cluster_could_ever_hold_is_told_at_once(
    run: Callable[..., tuple[int, str, str]], client: Client, agent: PlayedAgent, tmp_path: Path
) -> None:
    """And one that a worker group could hold, once it has nodes, is not."""
    spec = str(tmp_path / "job.yaml")
    Path(spec).write_text(yaml.safe_dump(SPEC))
    wide = ("-s", "resources.workers=9")
    asked = ("plan", spec, *wide, "--server", client.server, "-o", "json")
    code, out, said = run("submit", spec, *wide, "-o", "name")
    assert code == 0
    assert "waits for an agent with more room: agent played: 9 workers with 1 CPU each can never fit" in said
    assert client.why(out.strip()).kind is WhyKind.NEVER_FITS
    code, out, said = run(*asked)
    assert (code, json.loads(out)["room"]["fits"]) == (5, False)
    assert "no cluster could ever hold it" in said

    agent.ledger.provision(agent.owner, [Group("more", {"CPU": 8.0}, most=2, asked=0)])
    assert "more room" not in run("submit", spec, *wide)[2]
    code, out, _ = run(*asked)
    assert (code, json.loads(out)["room"]) == (0, {"fits": True, "why": ""})


def test_status_shows_the_worker_groups_of_agents(run: Callable[..., tuple[int, str, str]], agent: PlayedAgent) -> None:
    agent.ledger.provision(
        agent.owner, [Group("more", {"CPU": 8.0}, most=2, asked=1, waits=("1 of 1 pod: it starts",))]
    )
    assert "agent played, group more: 0 of 1 nodes, 2 at most; 1 of 1 pod: it starts" in run("status")[2]
