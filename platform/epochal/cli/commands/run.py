"""`epochal run`: train from a job spec, here and now."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from epochal.cli import render
from epochal.cli.mlflow_pages import pages
from epochal.cli.options import grace_option, output_option, retain_option, set_option
from epochal.cli.own_code import load
from epochal.cli.progress import display
from epochal.cli.render import Output
from epochal.cli.signals import first_asks
from epochal.errors import UsageError
from epochal.ledger.values import GRACE_SECONDS
from epochal.settings import Retention
from epochal.units import Duration

if TYPE_CHECKING:
    from epochal.agent.foreground import Foreground
    from epochal.agent.summary import Summary


@click.command()
@click.argument("source", metavar="FILE", required=False)
@set_option
@click.option("--resume", metavar="JOB", help="Go on with a job that was interrupted, from its newest checkpoint.")
@click.option(
    "--address",
    metavar="HOST:PORT",
    envvar="EPOCHAL_RAY_ADDRESS",
    help="Use the Ray cluster there, of which this machine is a node.  [default: a private one]",
)
@grace_option
@retain_option("checkpoints", "spools", "logs", "code", "events", "jobs")
@click.option("--dry-run", is_flag=True, help="Check the spec and print it resolved; run nothing.")
@click.option("-q", "--quiet", is_flag=True, help="No progress; errors, and the summary at the end.")
@output_option()
def command(
    source: str | None,
    overrides: tuple[str, ...],
    resume: str | None,
    address: str | None,
    retention: Retention,
    grace: float | None,
    output: Output,
    **switches: bool,
) -> int:
    """Train from the job spec FILE, here and now (`-` reads standard input).

    Ray is started for it and ended again. Ctrl-C saves the state and ends, and once more kills the workers;
    `epochal run --resume JOB` goes on from what was saved. Exit code: 0 it succeeded, 1 it failed, 2 the spec, its data
    or its code is wrong, and nothing was trained, 130 it was interrupted.
    """
    if (source is None) == (resume is None):
        raise UsageError("give a job spec, or --resume with a job", "`epochal run FILE`")
    if resume is not None and overrides:
        raise UsageError("a resumed job goes on with the spec it has: --set cannot change it")
    if switches["dry_run"]:
        if source is None:
            raise UsageError("a resumed job goes on with the spec it has: --dry-run is for a FILE")
        spec = load(source, overrides).spec.model_dump(mode="json")
        render.document(spec, Output.YAML if output is Output.TABLE else output)
        return 0
    loaded = None if source is None else load(source, overrides)
    from epochal import settings
    from epochal.agent.foreground import Foreground, Place

    with display(live=render.is_terminal(sys.stderr), quiet=switches["quiet"]) as shown:
        foreground = Foreground(Place(settings.home(), settings.tracking_uri(), address, retention), shown)
        with _interruptible(foreground, GRACE_SECONDS if grace is None else grace):
            summary = foreground.resume(resume or "") if loaded is None else foreground.run(loaded, tuple(sys.argv))
    _show(summary, output)
    return summary.exit_code


def _interruptible(foreground: Foreground, grace: float) -> AbstractContextManager[None]:
    """The first Ctrl-C (or SIGTERM) asks for a checkpoint and the end, the second kills the workers; where there are
    none, or after that, it ends the command."""

    def ask() -> None:
        within = f" within {Duration(grace)}" if grace else ""
        render.message(f"saving the state and ending{within}; once more ends at once, without saving")
        foreground.interrupt(grace)

    def end(_number: int) -> None:
        if not foreground.kill():
            raise KeyboardInterrupt

    return first_asks(ask, end)


def _show(summary: Summary, output: Output) -> None:
    from epochal.tracking.pages import run_page

    if output is not Output.TABLE:
        render.document(summary.to_dict(), output)
        return
    render.document(described(summary))
    if summary.unsent:
        why = f" ({summary.problem})" if summary.problem else ""
        render.warning(f"MLflow does not have {summary.unsent} yet{why}; `epochal runs sync` sends it")
    if summary.state == "PAUSED":
        render.message(f"go on with `epochal run --resume {summary.job}`")
    elif summary.run_id:
        there = pages()
        page = run_page(there.root, summary.run_id, summary.experiment_id or None)
        run = summary.run_id[:8]
        looked = f"`epochal runs show {run}`" if summary.trial is None else f"`epochal runs compare --sweep {run}`"
        render.message(f"look at it with {looked}, or at {there.said(page)}")


def described(summary: Summary) -> dict[str, Any]:
    """The summary for a person: what matters, and numbers as one reads them."""
    where = f"at step {summary.best[1]}" if summary.best and summary.best[1] else ""
    where = f"of trial {summary.trial}" if summary.trial is not None else where
    why = summary.reason if summary.state != "SUCCEEDED" else ""
    shown: dict[str, Any] = {
        "job": summary.job,
        "state": " ".join(part for part in (summary.state, f"({why})" if why else "") if part),
        "message": summary.message,
        "attempts": summary.attempts,
        "time": f"{summary.seconds:.1f} s",
        **{name: f"{value:.5g}" for name, value in sorted(summary.metrics.items()) if not name.startswith("perf/")},
        "best": f"{summary.best[0]:.5g} {where}" if summary.best else "",
        "point": dict(summary.point),  # not beside the others: a sweep may search `model`
        "report": summary.report,
        "model": summary.model,
        "checkpoint": summary.checkpoint if summary.model is None else None,
        "run": f"{summary.run_id} in experiment {summary.experiment}" if summary.run_id else "",
        "tracking": summary.tracking_uri,
    }
    return {name: value for name, value in shown.items() if value not in ("", None, {})}
