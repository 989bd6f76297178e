"""How runs are shown: one described, several beside each other, a sweep's trials below each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal import web_page
from epochal.cli import render
from epochal.files import write_atomically

if TYPE_CHECKING:
    from epochal.tracking.runs import Comparison, RunInfo

MOST_COMPARED = 100
"""Runs that a link to MLflow's page names: addresses may not be much longer."""
_TRIALS_SHOWN = 20
_DESCRIBED = (
    "id", "name", "job", "experiment", "status", "reason", "description", "start", "end", "models", "tags", "params",
    "metrics",
)  # fmt: skip


def described(run: RunInfo) -> dict[str, Any]:
    """All of it, as JSON has it."""
    return {name: getattr(run, name) for name in _DESCRIBED}


def duration(run: RunInfo) -> str:
    from epochal.units import Duration

    seconds = run.seconds if run.seconds is not None else time.time() - run.start
    return str(Duration(round(seconds, 1 if seconds < 60 else None)))


def structured(comparison: Comparison) -> dict[str, Any]:
    ids = [run.id for run in comparison.runs]

    def by_run(rows: dict[str, Any]) -> dict[str, Any]:
        return {name: dict(zip(ids, values, strict=True)) for name, values in rows.items()}

    return {
        "runs": [described(run) for run in comparison.runs],
        "metrics": by_run(comparison.metrics),
        "params": by_run(comparison.params),
    }


def show_runs(comparison: Comparison) -> None:
    """A column a run."""
    labels = _labels(comparison.runs)
    facts = {
        "status": tuple(run.status for run in comparison.runs),
        "reason": tuple(run.reason for run in comparison.runs),
        "duration": tuple(duration(run) for run in comparison.runs),
    }
    render.records(_beside("metric", facts | comparison.metrics, labels), ["metric", *labels], title="metrics")
    machines = {name for run in comparison.runs for name in run.metrics if name.startswith("system/")}
    known = len(comparison.metrics) + len(machines)
    render.part(len(comparison.metrics), known, "those of machines, with -o json", "metrics")
    render.text("")
    render.records(
        _beside("parameter", comparison.params, labels), ["parameter", *labels], title="parameters that differ"
    )


def show_trials(comparison: Comparison) -> None:
    """A row a trial, in the order of the comparison."""
    from epochal.cli.sweep_view import columns

    header, rows = _trial_rows(comparison)
    names = [*header[:4], *columns(header[4:-2]).values(), *header[-2:]]
    shown = [dict(zip(names, map(_short, row), strict=True)) for row in rows[:_TRIALS_SHOWN]]
    render.records(shown, names, title="trials", spare=("duration", "reason", *reversed(names[4:-2])))
    render.part(len(shown), len(rows), "with -o json, or --html FILE", "trials")


def write_page(comparison: Comparison, file: Path, curves: str, sweep: bool) -> None:
    """The comparison as one self-contained HTML page; ``curves`` is where MLflow draws those."""
    if sweep:
        header, rows = _trial_rows(comparison)
        title = f"{len(rows):,} trials of {comparison.runs[0].name.rpartition('-trial-')[0]}"
        parts = [web_page.table(header, rows)]
    else:
        labels = _labels(comparison.runs)
        title = f"{len(labels)} runs"
        parts = [
            web_page.section(name, web_page.table([name, *labels], ([key, *row] for key, row in values.items())))
            for name, values in (("metrics", comparison.metrics), ("parameters that differ", comparison.params))
        ]
    write_atomically(file, web_page.page(title, *parts, web_page.paragraph(f"Their curves: {curves}", soft=True)))
    render.message(f"written to {file}")


def _trial_rows(comparison: Comparison) -> tuple[list[str], list[list[Any]]]:
    from epochal.tracking.trial_runs import OBJECTIVE, STATE_TAG, TRIAL_TAG

    objective = comparison.runs[0].objective
    params = [name for name in comparison.params if not name.startswith("objective.")]
    header = ["id", "trial", "state", objective[0] if objective else OBJECTIVE, *params, "reason", "duration"]
    rows = [
        [
            run.short_id, run.tags.get(TRIAL_TAG), run.tags.get(STATE_TAG), run.metrics.get(OBJECTIVE),
            *(comparison.params[name][index] for name in params), run.reason, duration(run),
        ]
        for index, run in enumerate(comparison.runs)
    ]  # fmt: skip
    return header, rows


def _short(value: Any) -> Any:
    """Parameters are text in MLflow: of a number, as much as a table needs."""
    from epochal.cli.sweep_view import rounded

    try:
        return rounded(float(value)) if isinstance(value, str) and not value.isdecimal() else rounded(value, 5)
    except ValueError:
        return value


def _labels(runs: Sequence[RunInfo]) -> list[str]:
    return [f"{run.name} {run.short_id}" for run in runs]


def _beside(what: str, rows: dict[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    return [{what: name, **dict(zip(labels, values, strict=True))} for name, values in rows.items()]
