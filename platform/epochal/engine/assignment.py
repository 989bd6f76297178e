"""What one worker of an attempt is to do, and the files by which it and others of the job are told apart."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epochal.engine.capacity import GangRequest
from epochal.training.control import SETUP_SECONDS


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
    setup_seconds: float = SETUP_SECONDS

    @property
    def log_path(self) -> Path:
        return self.folder / "logs" / f"attempt-{self.attempt}" / f"rank-{self.rank}.log"


def stop_marker(folder: Path, attempt: int) -> Path:
    """The file that asks the workers of an attempt to stop. Its folder is made when the attempt begins."""
    return folder / "attempts" / str(attempt) / "stop"


def training_lock(folder: Path) -> Path:
    """The file that rank 0 of a job's attempt holds locked for as long as it trains."""
    return folder / "attempts" / "lock"


def newer_attempt(folder: Path, attempt: int) -> int | None:
    """The newest attempt that has begun at the job in ``folder``, where that is newer than this one.

    Raises:
        OSError: the folder cannot be read right now.
    """
    newest = max((int(name) for name in os.listdir(folder / "attempts") if name.isdigit()), default=attempt)
    return newest if newest > attempt else None
