"""The file by which a readiness probe knows that the agent leases jobs."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from epochal.agent.heartbeat import Heartbeat, Identity
from epochal.errors import UnreachableError


class Source:
    """One that answers, or does not."""

    answers = False

    def heartbeat(self, *_: Any) -> Any:
        if not self.answers:
            raise UnreachableError("nobody listens")
        return SimpleNamespace(seen_at=time.time())


def test_it_is_touched_when_the_server_has_heard_of_an_agent_that_stays(tmp_path: Path) -> None:
    source, heard = Source(), tmp_path / "heard"
    bookings = SimpleNamespace(told=lambda seen: (seen, ()))
    home = SimpleNamespace(storage=tmp_path / "storage")
    agent: Any = SimpleNamespace(source=source, home=home, bookings=bookings, cluster=SimpleNamespace(nodes=lambda: ()))
    heartbeat = Heartbeat(Identity("agent", "1"), agent, dict, heard)
    assert not heartbeat.start()
    assert not heard.exists()
    source.answers = True
    assert heartbeat.start()
    assert heard.exists()
    heard.unlink()
    heartbeat.leave()
    heartbeat.close()
    assert not heard.exists()
