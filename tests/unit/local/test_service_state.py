"""Plans and states of services, as they are written and read."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from epochal.errors import UnreachableError
from epochal.local import services
from epochal.local.service_plan import Plan, Probe, ServicePlan
from epochal.local.service_state import (
    Services,
    ServiceState,
    ServiceStatus,
    hold,
    read_services,
    supervisor_lock,
    supervisor_pid,
)


def test_state_and_plan_come_back_from_their_files(tmp_path: Path) -> None:
    status = ServiceStatus("a", ServiceState.READY, "http://127.0.0.1:1", 12, 3.5, 4.5, 1, -9, 0.5, "/a.log")
    services = Services(True, 11, 2.5, {"port": 1}, (status,))
    assert Services.from_json(json.dumps({**services.to_dict(), "new": 1})) == services
    plan = Plan(tmp_path, (ServicePlan("a", ("sleep", "1"), Probe("http://127.0.0.1:1"), needs=("b",)),), {"port": 1})
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("content", ["", "{", "[]", '{"services": {"a": {}}}'])
def test_broken_state_file_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    assert read_services(tmp_path) == Services(False)


def test_who_looks_while_the_lock_is_taken_over_sees_a_pid_and_never_half_of_one(tmp_path: Path) -> None:
    lock = supervisor_lock(tmp_path)
    with hold(lock, 0.0, "busy"):
        assert supervisor_pid(tmp_path) == os.getpid()
    lock.write_text("4194304")  # of one that has gone
    seen, done = set(), threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add(supervisor_pid(tmp_path))

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(300):
        with hold(lock, 1.0, "busy"):
            pass
    done.set()
    reader.join()
    assert seen <= {4194304, os.getpid()}


def test_a_supervisor_that_cannot_write_what_it_does_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that is full: its services are more important to it than the file."""
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: SimpleNamespace(poll=lambda: None))
    monkeypatch.setattr(services, "READY_SECONDS", 0.2)
    with pytest.raises(UnreachableError, match=r"can it write .*state\.json"):
        services._start_supervisor(Plan(tmp_path, ()))


def test_the_end_of_one_that_has_just_gone_is_not_waited_for(tmp_path: Path) -> None:
    supervisor_lock(tmp_path).write_text("")
    services._end_supervisor(tmp_path, True, lambda _: None)
