"""Sweeps of `epochal run`, which no server has: in the ledger of this home, beside the command or after it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Self

from epochal.client.sweeps import Sweeps
from epochal.errors import NotFoundError
from epochal.ledger.states import JobKind, JobState
from epochal.ledger.sweep_values import TrialRecord
from epochal.ledger.values import FullJob, Job
from epochal.settings import Home

if TYPE_CHECKING:
    from epochal.ledger.ledger import Ledger


class OwnSweeps(Sweeps):
    """The ledger that `epochal run` writes. Such a sweep that runs hears what it is asked as any does; one that does
    not goes on with `epochal run --resume JOB`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @classmethod
    def with_sweep(cls, home: Home, ref: str) -> Self | None:
        """Those of a home where something was run, if the sweep is among them.

        Raises:
            ConflictError: the beginning of an id fits several.
        """
        # With all of SQLAlchemy, which commands can do without.
        from epochal.agent.reconcile import settle_interrupted
        from epochal.ledger.ledger import Ledger

        with ExitStack() as opened:
            own = cls(opened.enter_context(Ledger.open(home.ledger_url)))
            settle_interrupted(own._ledger, home)  # one whose process died does not run
            with suppress(NotFoundError):
                if own.job(ref).kind is JobKind.SWEEP:
                    opened.pop_all()  # the caller closes it
                    return own
        return None

    def job(self, ref: str) -> FullJob:
        return self._ledger.full_job(ref)

    def trials(self, ref: str, states: Collection[str] = ()) -> list[TrialRecord]:
        found = self._ledger.trials(self._ledger.job(ref).id)
        return [one for one in found if not states or one.state in states]

    def _request(self, ref: str, asked: Mapping[str, Any], key: str) -> Job:
        job = self._sweep(ref)
        if asked["kind"] == "add":
            from epochal.server.spec_check import require_points

            require_points(job, asked["points"])
        return self._ledger.ask(job.id, asked, key)

    def goes_on(self, job: Job) -> str:
        return f"epochal run --resume {job.id}" if job.state in (JobState.PAUSED, JobState.QUEUED) else ""

    def close(self) -> None:
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
