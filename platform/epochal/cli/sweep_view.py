"""How sweeps and their trials look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from epochal.cli.job_view import seconds, shortened, state
from epochal.ledger.sweep_values import best_of
from epochal.sweeps.trials import TrialState
from epochal.tracking.pages import page_of

if TYPE_CHECKING:
    from epochal.ledger.sweep_values import TrialRecord
    from epochal.ledger.values import FullJob

_RUN_ID = 8
_KNOWN = ("trial", "state", "length", "value", "run", "ran", "message")
"""Columns of every table of trials; what was searched stands after the fourth."""


def facts(job: FullJob, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """What matters of a sweep, for a person; what there is nothing to say of is left out."""
    search, scheduler = job.spec["sweep"]["search"], job.spec["sweep"]["trial_scheduler"]
    shown = {
        "id": job.id,
        "state": state(job),
        "message": job.message,
        "searcher": search["name"],
        "trial scheduler": scheduler["name"],
        "trials": _counted(job, trials),
        "rungs": rungs(job, trials),
        "best": _best(job, trials),
        "run": job.run_id,
        "page": page_of(job.tracking_uri, job.run_id, job.experiment_id),
    }
    return {name: value for name, value in shown.items() if value not in ("", None)}


def summary(job: FullJob, trials: Sequence[TrialRecord]) -> str:
    """In one line: ``RUNNING: 12 of 32 trials, 2 running; best 0.93 (trial 7)``."""
    best = _best(job, trials)
    return f"{state(job)}: {_counted(job, trials)}{f'; best {best}' if best else ''}"


def best_facts(job: FullJob, trial: TrialRecord) -> dict[str, Any]:
    """The best trial, with its point."""
    return {
        "trial": trial.number,
        job.spec["objective"]["metric"]: trial.value,
        "state": trial.state.value,
        _unit(job.spec): trial.length,
        **{path: {"is": value} if isinstance(value, Mapping) else value for path, value in trial.point.items()},
        "run": trial.run_id,
        "page": page_of(job.tracking_uri, trial.run_id, job.experiment_id),
    }


def columns(paths: Collection[str]) -> dict[str, str]:
    """What was searched -> its name in a table: as little of the path's end as tells it from the others; the whole path
    where another ends in that."""
    ends = Counter(name for path in paths for name in _ends(path))
    return {
        path: next((name for name in _ends(path) if name not in _KNOWN and ends[name] == 1), path) for path in paths
    }


def row(trial: TrialRecord | None, names: Mapping[str, str]) -> dict[str, Any]:
    """A trial as a line of a table; None: which columns there are. ``names`` are those of ``columns``."""
    shown: dict[str, Any] = dict.fromkeys((*_KNOWN[:4], *names.values(), *_KNOWN[4:]))
    if trial is None:
        return shown
    known = trial.started_at is not None and trial.ended_at is not None
    return shown | {
        "trial": trial.number,
        "state": f"{trial.state.value} ({trial.reason})" if trial.reason else trial.state.value,
        "length": trial.length,
        "value": rounded(trial.value, 5),
        **{name: rounded(trial.point.get(path)) for path, name in names.items()},
        "run": (trial.run_id or "")[:_RUN_ID],
        "ran": seconds((trial.ended_at or 0.0) - (trial.started_at or 0.0)) if known else "",
        "message": shortened(trial.message),
    }


def rounded(value: Any, digits: int = 3) -> Any:
    """A value of a point for a table: a number to so many digits."""
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def rungs(job: FullJob, trials: Sequence[TrialRecord]) -> str:
    """How many were measured at each length, or beyond it: ``1: 27, 3: 9, 9: 3 epochs``."""
    lengths = Counter(one.length for one in trials if one.length > 0)
    reached = [
        (length, sum(count for other, count in lengths.items() if other >= length)) for length in sorted(lengths)
    ]
    told = ", ".join(f"{length:g}: {count}" for length, count in reached)
    return f"{told} {_unit(job.spec)}" if len(reached) > 1 else ""


def _counted(job: FullJob, trials: Sequence[TrialRecord]) -> str:
    counts = Counter(one.state for one in trials)
    over = sum(count for state_, count in counts.items() if state_.is_over)
    planned = max(len(trials), (job.progress or {}).get("trials") or job.spec["sweep"]["trials"])
    others = (TrialState.RUNNING, TrialState.PAUSED, TrialState.FAILED)
    said = "".join(f", {counts[one]} {one.lower()}" for one in others if counts[one])
    return f"{over} of {planned} done{said}"


def _best(job: FullJob, trials: Sequence[TrialRecord]) -> str:
    first = best_of(trials, job.spec["objective"]["mode"])
    if first is None:
        return ""
    metric = job.spec["objective"]["metric"]
    return f"{metric} {first.value:.5g} (trial {first.number}, {first.length:g} {_unit(job.spec)})"


def _unit(spec: Mapping[str, Any]) -> str:
    """Of lengths: as the training has it, which no trial differs in."""
    return "steps" if spec["train"].get("steps") else "epochs"


def _ends(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
