"""`epochal runs`: what MLflow has recorded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from epochal.cli import render
from epochal.cli.mlflow_pages import pages, recorded_at
from epochal.cli.options import AMOUNT, output_option
from epochal.cli.render import Output
from epochal.cli.run_view import MOST_COMPARED, described, duration, show_runs, show_trials, structured, write_page
from epochal.errors import UsageError

if TYPE_CHECKING:
    from epochal.tracking.runs import RunInfo

_METRIC_COLUMNS = 3
_SHOWN = (
    "id", "name", "job", "experiment", "status", "reason", "started", "duration", "description", "models", "tags",
    "params",
)  # fmt: skip
_EXTENT = ("metric", "last", "lowest", "lowest_at", "highest", "highest_at")
_STATUSES = ("RUNNING", "FINISHED", "FAILED", "KILLED")


@click.group("runs")
def command() -> None:
    """List, show and compare recorded runs.

    A run is named by its id or a unique beginning of it, by its job's id, or by its name (the newest of that name).
    """


@command.command("list")
@click.option("--experiment", help="Only the runs of this MLflow experiment.")
@click.option("--job", help="Only the runs of this job id.")
@click.option("--status", type=click.Choice(_STATUSES, case_sensitive=False), help="Only runs with this status.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most this many.")
@output_option()
def list_command(experiment: str | None, job: str | None, status: str | None, limit: int, output: Output) -> None:
    """List runs, the newest first, with their newest metrics."""
    from epochal.tracking.runs import list_runs

    one_more = list_runs(recorded_at(), experiment, job, status, limit + 1)  # MLflow does not count them
    found = one_more[:limit]
    if output in (Output.JSON, Output.YAML):
        render.records([described(run) for run in found], ["id"], output)
    else:
        metrics = _common_metrics(found)
        rows = [{**_row(run), **{name: run.metrics.get(name) for name in metrics}} for run in found]
        render.records(rows, ["id", "name", "status", "reason", "started", "duration", *metrics], output, "runs")
        if output is Output.TABLE:
            known = {name for run in found for name in run.metrics}
            render.part(len(metrics), len(known), "`epochal runs show RUN --all`, or -o json", "metrics")
    if len(one_more) > limit:
        render.message(f"the newest {limit:,} are shown, and there are more: --limit {10 * limit}")


@command.command("show")
@click.argument("run", metavar="RUN")
@click.option("--all", "everything", is_flag=True, help="The metrics of performance and machines too.")
@output_option()
def show_command(run: str, everything: bool, output: Output) -> None:
    """Show one run: parameters, tags, last and best metrics, and where MLflow draws its curves."""
    from epochal.tracking.pages import run_page
    from epochal.tracking.runs import get_run, main_metrics

    uri = recorded_at()
    found = get_run(uri, run)
    rows = _metric_rows(uri, found, sorted(found.metrics) if everything else main_metrics(found.metrics))
    there = pages()
    page = run_page(there.root, found.id, found.experiment_id)
    if output is not Output.TABLE:
        render.document({**described(found), "extents": rows, "page": page}, output)
        return
    facts = {**described(found), "started": datetime.fromtimestamp(found.start), "duration": duration(found)}
    render.document({name: facts[name] for name in _SHOWN})
    render.text("")
    render.records(rows, _EXTENT, title="metrics")
    render.part(len(rows), len(found.metrics), "--all", "metrics")
    render.message(f"its curves: {there.said(page)}")


@command.command("compare")
@click.argument("runs", nargs=-1, metavar="RUN...")
@click.option("--sweep", metavar="RUN", help="All trials of this sweep, the best first.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Also write one HTML page of it.")
@output_option()
def compare_command(runs: tuple[str, ...], sweep: str | None, html: Path | None, output: Output) -> None:
    """Compare runs: their metrics, and only the parameters that differ; and where MLflow draws their curves."""
    from epochal.tracking.pages import comparison_page
    from epochal.tracking.runs import compare, compared, get_run, trial_runs

    if bool(runs) == bool(sweep):
        raise UsageError("name the runs to compare, or one sweep", "`epochal runs compare RUN RUN`, or `--sweep RUN`")
    uri = recorded_at()
    comparison = compare(uri, runs) if not sweep else compared(trial_runs(uri, get_run(uri, sweep)))
    there = pages()
    shown = comparison.runs[:MOST_COMPARED]
    page = comparison_page(there.root, [(run.id, run.experiment_id) for run in shown])
    if output in (Output.JSON, Output.YAML):
        render.document({**structured(comparison), "page": page}, output)
    elif output is Output.NAME:
        render.records([{"id": run.id} for run in comparison.runs], ["id"], output)
    else:
        (show_trials if sweep else show_runs)(comparison)
        best = f" (of the best {len(shown)})" if len(shown) < len(comparison.runs) else ""
        render.message(f"their curves{best}: {there.said(page)}")
    if html:
        write_page(comparison, html, page, bool(sweep))


@command.command("register")
@click.argument("run", metavar="RUN")
@click.option("--name", required=True, help="The registered model's name; made where there is none.")
@click.option("--alias", default="best", show_default=True, help="What asks for this version from now on.")
@output_option()
def register_command(run: str, name: str, alias: str, output: Output) -> None:
    """Register the run's model in MLflow. That of a sweep's run is its best trial's."""
    from epochal.tracking.model_versions import register
    from epochal.tracking.runs import get_run

    uri = recorded_at()
    found = get_run(uri, run)
    version = register(uri, found, name, alias)
    made = {"model": f"models:/{name}@{alias}", "name": name, "version": version, "alias": alias, "run": found.id}
    render.document(made, output)


@command.command("sync")
@click.option("--timeout", default=60.0, show_default=True, type=AMOUNT, help="Seconds to try for.")
@output_option()
def sync_command(timeout: float, output: Output) -> int:
    """Send to MLflow what could not be sent earlier, and say what is left, and why."""
    from epochal.agent.reconcile import catch_up
    from epochal.local.service_state import read_services
    from epochal.settings import home, tracking_uri

    uri = tracking_uri()
    results = catch_up(home(), uri, timeout, read_services(home().services).tracked_at(uri)).synced
    rows: list[dict[str, Any]] = [
        {
            "job": job,
            "run": synced.run_id,
            "sent": not synced.pending,
            "left": synced.left,
            "problem": synced.problem,
            "refused": list(synced.refused),
        }
        for job, synced in results.items()
    ]
    if not rows and output is Output.TABLE:
        render.message("nothing was waiting to be sent")
        return 0
    render.records(rows, ["job", "run", "sent", "left", "problem"], output, "jobs")
    for job, synced in results.items():
        for one in synced.refused:
            render.warning(f"MLflow refuses to store {one}; it stays in the folder of {job}")
    return 5 if any(row["left"] for row in rows) else 0


def _row(run: RunInfo) -> dict[str, Any]:
    return {
        "id": run.short_id,
        "name": run.name,
        "status": run.status,
        "reason": run.reason,
        "started": datetime.fromtimestamp(run.start),
        "duration": duration(run),
    }


def _common_metrics(runs: Sequence[RunInfo]) -> list[str]:
    """The few metrics worth a column: what runs are judged by, then what most of them have."""
    from epochal.tracking.runs import main_metrics

    judged = dict.fromkeys(run.objective[0] for run in runs if run.objective and run.objective[0] in run.metrics)
    counts: dict[str, int] = {}
    for run in runs:
        for name in main_metrics(run.metrics):
            counts[name] = counts.get(name, 0) + 1
    common = sorted(main_metrics(dict.fromkeys(counts, 0.0)), key=lambda name: -counts[name])
    return list(dict.fromkeys([*judged, *common]))[:_METRIC_COLUMNS]


def _metric_rows(uri: str, run: RunInfo, names: Sequence[str]) -> list[dict[str, Any]]:
    from epochal.tracking.runs import extent, metric_history

    rows = []
    for name in names:
        if reached := extent(metric_history(uri, run.id, name)):
            values = (name, reached.last, reached.low, reached.low_step, reached.high, reached.high_step)
            rows.append(dict(zip(_EXTENT, values, strict=True)))
    return rows
