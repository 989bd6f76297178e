"""What earlier commands left to be done: jobs whose agent went away, runs that MLflow does not have yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from epochal.doctor.check import Check, fail, ok, warn
from epochal.errors import EpochalError, OlderLedgerError, some
from epochal.settings import Home

if TYPE_CHECKING:
    from epochal.ledger.ledger import Ledger
    from epochal.ledger.states import JobState

AHEAD_SECONDS = 5.0


def jobs(counts: dict[JobState, int], of: str = "run") -> Check:
    """``of``: whose ledger: that of ``epochal run``, or the server's."""
    found = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return ok(f"ledger ({of})", found or "no jobs yet")


def lost_leases(overdue: list[str]) -> Check:
    """``overdue``: jobs whose lease has run out, or whose process is known to be dead."""
    if not overdue:
        return ok("leases", "every running job's process is alive")
    found = f"the process that ran {some(overdue)} is gone"
    return warn(
        "leases", found, "the next `epochal run` marks them PAUSED and closes their MLflow runs; go on with --resume"
    )


def paused(waiting: list[str]) -> Check:
    if not waiting:
        return ok("paused jobs", "none")
    return ok("paused jobs", some(waiting), f"`epochal run --resume {waiting[0]}` goes on from its newest checkpoint")


def ledger_clock(newest: float | None, now: float) -> Check:
    """``newest``: when the ledger was last changed, by its own record."""
    if newest is None or newest <= now + AHEAD_SECONDS:
        return ok("ledger clock", "nothing in the ledger is dated later than now")
    advice = "the clock was set back: leases run out later than they should until it has caught up"
    return warn("ledger clock", f"the newest change is dated {newest - now:.0f} s later than now", advice)


def unsent(folders: dict[str, str]) -> Check:
    """``folders``: jobs of which MLflow does not have everything, and what it said the last time; empty: nothing."""
    if not folders:
        return ok("tracking", "MLflow has everything")
    if why := [f"{job}: {problem}" for job, problem in folders.items() if problem]:
        found = f"MLflow lacks something of {len(folders)} job{'s' if len(folders) > 1 else ''}: {some(why)}"
        return warn("tracking", found, "once that is mended, `epochal runs sync` sends what is kept")
    return warn("tracking", f"not all of {some(list(folders))} is in MLflow yet", "`epochal runs sync` sends it")


def refused(folders: dict[str, list[str]]) -> Check:
    """``folders``: jobs with something that MLflow will never take, and what that is."""
    if not folders:
        return ok("refused by MLflow", "nothing")
    found = some([f"{one} of {job}" for job, refused in folders.items() for one in refused])
    advice = "it is in the folder of the job; MLflow takes other names and values, in the next job"
    return warn("refused by MLflow", found, advice)


def damaged(folders: dict[str, str]) -> Check:
    """``folders``: those of jobs that cannot be read, and why."""
    if not folders:
        return ok("job folders", "all can be read")
    found = some([f"{folder}: {why}" for folder, why in folders.items()])
    advice = "what they hold is not sent to MLflow: mend them, or move them away"
    return warn("job folders", found, advice)


def look(home: Home) -> Iterator[Check]:
    """The checks of this module. Reads only: a ledger that is not there is not made."""
    if home.ledger.exists():
        yield from _look_at_ledger(home.ledger_url)
    else:
        yield ok("ledger (run)", "no jobs yet")
    here, served = _folders(home.storage), _folders(home.served.storage)
    yield unsent(here.pending | served.pending)
    yield refused(here.refused | served.refused)
    yield damaged(here.unreadable | served.unreadable)


class _Folders(NamedTuple):
    """See the checks."""

    pending: dict[str, str]
    refused: dict[str, list[str]]
    unreadable: dict[str, str]


def _folders(storage: Path) -> _Folders:
    from epochal.tracking.sync_state import UNREADABLE, SyncState, is_pending

    found = _Folders({}, {}, {})
    for folder in sorted((storage / "jobs").glob("*")):
        try:
            state = SyncState.load(folder)
            if is_pending(folder):
                found.pending[folder.name] = state.problem
            if state.refused:
                found.refused[folder.name] = state.refused
        except (*UNREADABLE, EpochalError) as error:
            found.unreadable[str(folder)] = f"{type(error).__name__}: {error}"
    return found


def _look_at_ledger(url: str) -> Iterator[Check]:
    try:
        from epochal.ledger.ledger import Ledger
    except ImportError as error:
        yield warn("ledger (run)", f"there is one, but no {error.name} to read it", "pip install 'epochal[cluster]'")
        return
    try:
        with Ledger.open(url, upgrade=False) as ledger:
            yield from _ask(ledger)
    except OlderLedgerError as error:
        yield warn("ledger (run)", error.message, error.hint)
    except EpochalError as error:
        yield fail("ledger (run)", error.message, error.hint)


def _ask(ledger: Ledger) -> Iterator[Check]:
    from epochal.agent.reconcile import is_dead
    from epochal.ledger.states import ACTIVE, JobState

    yield jobs(ledger.counts())
    overdue = {job.id for job in ledger.overdue()}
    yield lost_leases([job.id for job in ledger.jobs(ACTIVE) if job.id in overdue or is_dead(job.owner or "")])
    yield paused([job.id for job in ledger.jobs([JobState.PAUSED])])
    newest = ledger.jobs(limit=100)  # a clock that was set back shows in them
    yield ledger_clock(max((job.updated_at for job in newest), default=None), ledger.now())
