"""How a training hears that it is to stop."""

from __future__ import annotations

import errno
import queue
from pathlib import Path

import pytest

from epochal.engine import worker
from epochal.engine.worker import WorkerControl


def test_a_marker_that_cannot_be_looked_for_just_now_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_STOP_POLL_SECONDS", 0.0)
    control = WorkerControl(0, tmp_path / "stop", queue.SimpleQueue())

    def away(path: Path) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    with monkeypatch.context() as storage:
        storage.setattr(Path, "exists", away)
        assert not control.stop_requested()
    (tmp_path / "stop").touch()
    assert control.stop_requested()
