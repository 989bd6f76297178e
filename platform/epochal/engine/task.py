"""The task of one worker, as the driver names it. It imports no torch: the driver does without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epochal.engine.capacity import GangRequest
from epochal.engine.events import Event


@dataclass(frozen=True)
class Assignment:
    """What one worker of an attempt is to do. ``target`` is ``"module:function"``; see ``worker.WorkerContext``."""

    rank: int
    world_size: int
    local_rank: int
    attempt: int
    folder: Path
    target: str
    payload: Any
    request: GangRequest

    @property
    def log_path(self) -> Path:
        return self.folder / "logs" / f"attempt-{self.attempt}" / f"rank-{self.rank}.log"


def stop_marker(folder: Path, attempt: int) -> Path:
    """The file that asks the workers of an attempt to stop."""
    return folder / "attempts" / str(attempt) / "stop"


def run(assignment: Assignment, meeting: tuple[str, int] | None) -> Iterator[Event]:
    """The worker's events, the last of them ``Done`` or ``Failed``.

    ``meeting`` is the host and port of rank 0's store. Rank 0 gets none: it makes one, and tells it as it starts.
    """
    from epochal.engine.worker import work

    yield from work(assignment, meeting)
