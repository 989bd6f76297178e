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
    """What one worker of an attempt is to do. ``target`` is ``"module:function"``; see ``worker.WorkerContext``.

    ``first_worker`` is the number of the gang's first worker among all of the attempt's: a sweep has several gangs.
    """

    rank: int
    world_size: int
    local_rank: int
    attempt: int
    folder: Path
    target: str
    payload: Any
    request: GangRequest
    setup_seconds: float = SETUP_SECONDS
    first_worker: int = 0

    @property
    def worker(self) -> int:
        """The number of the worker among all of the attempt's."""
        return self.first_worker + self.rank

    @property
    def log_path(self) -> Path:
        return self.folder / "logs" / f"attempt-{self.attempt}" / f"rank-{self.worker}.log"


def stop_marker(folder: Path, attempt: int) -> Path:
    """The file that asks the workers of an attempt to stop. Its folder is made when the attempt begins."""
    return folder / "attempts" / str(attempt) / "stop"


def training_lock(folder: Path, attempt: int, first_worker: int) -> Path:
    """The file that rank 0 of a gang holds locked for as long as it trains."""
    return folder / "attempts" / str(attempt) / f"lock-{first_worker}"


def older_locks(folder: Path, attempt: int) -> list[Path]:
    """The locks of older attempts at the job in ``folder``."""
    found = (folder / "attempts").glob("*/lock-*")
    return sorted(path for path in found if path.parent.name.isdigit() and int(path.parent.name) < attempt)


def newer_attempt(folder: Path, attempt: int) -> int | None:
    """The newest attempt that has begun at the job in ``folder``, where that is newer than this one.

    Raises:
        OSError: the folder cannot be read right now.
    """
    newest = max((int(name) for name in os.listdir(folder / "attempts") if name.isdigit()), default=attempt)
    return newest if newest > attempt else None
