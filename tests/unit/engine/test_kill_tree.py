"""All of a worker's processes that may be ended are."""

from __future__ import annotations

import psutil
import pytest

from epochal.engine import process


class Listed:
    """A process in the system's table, of this user or of another."""

    def __init__(self, ours: bool = True, below: tuple[Listed, ...] = ()) -> None:
        self.ours, self.below, self.killed = ours, below, False

    def create_time(self) -> float:
        return psutil.boot_time() + 5.0

    def children(self, recursive: bool) -> list[Listed]:
        assert recursive
        return list(self.below)

    def name(self) -> str:
        return "python"

    def kill(self) -> None:
        if not self.ours:
            raise psutil.AccessDenied
        self.killed = True


def test_what_the_job_started_as_another_user_saves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    others = Listed(ours=False)
    child = Listed()
    worker = Listed(below=(others, child))
    monkeypatch.setattr(psutil, "Process", lambda pid: worker)
    assert process.kill_tree(17, 5.0)
    assert (others.killed, child.killed, worker.killed) == (False, True, True)
