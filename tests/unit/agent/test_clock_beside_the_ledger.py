"""An agent whose clock is not the ledger's says so; one that is only answered late does not."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from epochal.agent.heartbeat import Heartbeat, Identity
from epochal.agent.in_process import LedgerSource
from epochal.agent.job_runner import Agent
from epochal.engine.connection import Connection
from epochal.settings import Home


@pytest.mark.parametrize(
    ("off", "told"),
    [
        (0.0, []),
        (4.0, []),
        (300.0, ["its clock is 300 s ahead of the ledger's"]),
        (-300.0, ["its clock is 300 s behind the ledger's"]),
    ],
    ids=["right", "nearly", "ahead", "behind"],
)
def test_a_clock_that_is_off(off: float, told: list[str], tmp_path: Path) -> None:
    cluster = cast("Connection", SimpleNamespace(nodes=lambda: ()))
    with LedgerSource.open("sqlite://") as ledger:

        def detail() -> dict[str, Any]:
            return {"warnings": heartbeat.warnings}

        agent = Agent("a", ledger, cluster, Home(tmp_path), "sqlite://")
        heartbeat = Heartbeat(Identity("a", "1"), agent, detail, clock=lambda: time.time() + off)
        heartbeat.leave()
        heartbeat.leave()  # the next one tells what was seen at the one before
        (known,) = ledger.agents()
        assert [one["found"] for one in known.warnings] == told
        assert all("time server" in one["advice"] for one in known.warnings)
