"""Whether any cluster could ever hold a job, as `submit` and `plan` tell it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from restartable_server import SPEC, PlayedAgent

from epochal.client import Client
from epochal.ledger.capacity import Group
from epochal.ledger.values import WhyKind

pytestmark = pytest.mark.usefixtures("connected")


def test_a_job_that_no_cluster_could_ever_hold_is_told_at_once(
    run: Callable[..., tuple[int, str, str]], client: Client, agent: PlayedAgent, tmp_path: Path
) -> None:
    """And one that a worker group could hold, once it has nodes, is not."""
    spec = str(tmp_path / "job.yaml")
    Path(spec).write_text(yaml.safe_dump(SPEC))
    wide = ("-s", "resources.workers=9")
    asked = ("plan", spec, *wide, "--server", client.server, "-o", "json")
    agent.appear()
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
