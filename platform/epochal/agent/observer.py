"""Who watches a job: the agent tells, a command renders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from epochal.agent.sweep_progress import SweepProgress
    from epochal.ledger.values import Job
    from epochal.training.control import Progress, Saved


class Observer(Protocol):
    """Told what happens to a job, from the agent's thread; must return quickly."""

    def state(self, job: Job) -> None:
        """The job's row has changed."""

    def progress(self, progress: Progress) -> None:
        """Where the training is (rank 0)."""

    def sweep(self, progress: SweepProgress) -> None:
        """How a sweep stands."""

    def saved(self, saved: Saved) -> None:
        """A checkpoint is complete."""

    def log(self, rank: int, text: str, begun: str = "") -> None:
        """What a worker printed: whole lines, and what there is of one that it has begun."""

    def notice(self, text: str) -> None:
        """Something a person should read: a retry, a server that does not answer."""


class SilentObserver:
    """Tells nobody."""

    def state(self, job: Job) -> None:
        return

    def progress(self, progress: Progress) -> None:
        return

    def sweep(self, progress: SweepProgress) -> None:
        return

    def saved(self, saved: Saved) -> None:
        return

    def log(self, rank: int, text: str, begun: str = "") -> None:
        return

    def notice(self, text: str) -> None:
        return
