"""The file by which a readiness probe knows that the agent leases jobs."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from epochal.agent.heartbeat import Heartbeat, Identity
from epochal.errors import UnreachableError


class Source:
    """One that answers, or does not."""

    answers = False

    def heartbeat(self, *_: Any) -> Any:
        if not self.answers:
            raise UnreachableError("nobody listens")
        return SimpleNamespace(seen_at=time.time())


def heartbeat_of(source: Source, folder: Path, heard: Path) -> Heartbeat:
    bookings = SimpleNamespace(told=lambda seen: (seen, ()))
    home, cluster = SimpleNamespace(storage=folder / "storage"), SimpleNamespace(nodes=lambda: ())
    agent: Any = SimpleNamespace(source=source, home=home, bookings=bookings, cluster=cluster)
    return Heartbeat(Identity("agent", "1"), agent, dict, heard)


def test_it_is_touched_when_the_server_has_heard_of_an_agent_that_stays(tmp_path: Path) -> None:
    source, heard = Source(), tmp_path / "heard"
    heartbeat = heartbeat_of(source, tmp_path, heard)
    assert not heartbeat.start()
    assert not heard.exists()
    source.answers = True
    assert heartbeat.start()
    assert heard.exists()
    heard.unlink()
    heartbeat.leave()
    heartbeat.close()
    assert not heard.exists()


def test_a_disk_that_takes_no_file_is_not_said_to_be_a_server_that_does_not_hear(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source()
    source.answers = True
    heartbeat = heartbeat_of(source, tmp_path, tmp_path / "no-folder" / "heard")
    assert heartbeat.start()
    heartbeat.close()
    assert "no-folder/heard cannot be written" in caplog.text
    assert "no heartbeat reaches the server" not in caplog.text
