"""What the training loop sees of tracking: a place to put metrics, cheap enough for every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Recorder(Protocol):
    """Takes metrics; never blocks and never fails a step."""

    def log(self, step: int, metrics: Mapping[str, float], timestamp: float | None = None) -> None:
        """Record ``metrics`` at the global ``step``; ``timestamp`` in Unix seconds, default now."""

    def flush(self) -> None:
        """Everything logged so far survives a SIGKILL after this returns (no network involved)."""

    def sync(self) -> None:
        """Everything flushed so far survives a loss of power after this returns. May be called from any thread.

        Raises:
            OSError: it could not be written.
        """

    def close(self) -> None:
        """
        Raises:
            OSError: what was logged could not be written.
        """


class NullRecorder:
    """Records nothing: every rank but the first has one."""

    def log(self, step: int, metrics: Mapping[str, float], timestamp: float | None = None) -> None:
        return

    def flush(self) -> None:
        return

    def sync(self) -> None:
        return

    def close(self) -> None:
        return


class MemoryRecorder(NullRecorder):
    """Keeps everything, for tests and notebooks: ``history[name]`` is a list of ``(step, value)``."""

    def __init__(self) -> None:
        self.history: dict[str, list[tuple[int, float]]] = {}

    def log(self, step: int, metrics: Mapping[str, float], timestamp: float | None = None) -> None:
        for name, value in metrics.items():
            self.history.setdefault(name, []).append((step, value))
