"""Plans and states of services, as they are written and read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from epochal.local.service_plan import Plan, Probe, ServicePlan
from epochal.local.service_state import Services, ServiceState, ServiceStatus, read_services


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
