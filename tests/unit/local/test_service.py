"""A supervised service that the system cannot start."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from epochal.local.service import Service
from epochal.local.service_plan import Probe, ServicePlan
from epochal.local.service_state import ServiceState


def refused(*arguments: object, **options: object) -> NoReturn:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def test_one_that_cannot_be_started_again_now_is_tried_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(ServicePlan("server", ("/bin/true",), Probe("http://127.0.0.1:9")), tmp_path)
    monkeypatch.setattr("subprocess.Popen", refused)
    with pytest.raises(BlockingIOError):  # `epochal up` is still there to tell
        service.watch(needed=True)
    service.status = replace(service.status, restarts=1)
    service.watch(needed=True)
    assert (service.status.state, service.status.restarts) == (ServiceState.WAITING, 2)
    service.watch(needed=True)  # not before its time has come
    assert service.status.restarts == 2
