"""`epochal sweep`: hyperparameter searches that were submitted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from epochal.cli import render
from epochal.cli.commands import sweep_report
from epochal.cli.commands.job_actions import pause, resume, stop
from epochal.cli.connection import with_sweep
from epochal.cli.options import output_option
from epochal.cli.render import Output
from epochal.errors import ConflictError, SpecError, UnreachableError, UsageError

if TYPE_CHECKING:
    from epochal.client.sweeps import Sweeps
    from epochal.ledger.sweep_values import TrialRecord
    from epochal.ledger.values import FullJob, Job

_LOOK_SECONDS = 2.0
_SWEEP = click.argument("sweep", metavar="SWEEP")


@click.group("sweep")
def command() -> None:
    """Look at a hyperparameter search, take its best point, and ask for more of it.

    A SWEEP is a job, named as one. It is submitted, paused, resumed and stopped as one, too. Where no server has it, it
    is looked for among those of `epochal run` on this machine.
    """


@command.command("status")
@_SWEEP
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most this many trials.")
@click.option("-f", "--follow", is_flag=True, help="Show it again every two seconds until it ends. Ctrl-C detaches.")
@with_sweep
@output_option()
def status_command(client: Sweeps, sweep: str, limit: int, follow: bool, output: Output) -> int:
    """Show a sweep: how far it is, and its trials, the best first.

    With --follow the exit code is 0 where it has succeeded, else 1.
    """
    if not follow:
        _show(client, *_looked(client, sweep), limit, output)
        return 0
    try:
        return _follow(client, sweep, limit, output)
    except KeyboardInterrupt:
        render.message(f"it goes on; come back with `epochal sweep status -f {sweep}`")
        return 130


@command.command("best")
@_SWEEP
@with_sweep
@output_option()
def best_command(client: Sweeps, sweep: str, output: Output) -> None:
    """Show the best trial so far; as yaml or json, a job spec that trains its point, ready to be submitted."""
    from epochal.cli.sweep_view import best_facts

    if output in (Output.YAML, Output.JSON):
        spec = client.best_spec(sweep)
        render.document(spec.model_dump(mode="json", exclude_unset=True), output)
        return
    trial = client.best_trial(sweep)
    if output is Output.NAME:
        render.document({"number": trial.number}, output)
        return
    job = client.job(sweep)
    render.document(best_facts(job, trial))
    render.message(f"`epochal sweep best {job.id} -o yaml` prints a job spec that trains it")


@command.command("extend")
@_SWEEP
@click.option("--trials", type=click.IntRange(1), required=True, help="So many points more.")
@with_sweep
@output_option()
def extend_command(client: Sweeps, sweep: str, trials: int, output: Output) -> None:
    """Try more points than were planned, also after the sweep has ended: the searcher goes on from all it knows."""
    _told(client, client.extend(sweep, trials), output)


@command.command("add")
@_SWEEP
@click.option(
    "-s", "--set", "values", multiple=True, required=True, metavar="PATH=VALUE",
    help="A field of the point, such as train.optimizer.lr=0.01. Repeatable.",
)  # fmt: skip
@with_sweep
@output_option()
def add_command(client: Sweeps, sweep: str, values: tuple[str, ...], output: Output) -> None:
    """Try a point of your own next, beyond the sweep's number of trials. What it leaves open is drawn at random."""
    _told(client, client.add(sweep, [_point(values)]), output)


@command.command("repeat")
@_SWEEP
@click.option("--trial", type=click.IntRange(0), required=True, help="The trial's number.")
@click.option("--times", type=click.IntRange(1, 1000), default=1, show_default=True, help="How often.")
@with_sweep
@output_option()
def repeat_command(client: Sweeps, sweep: str, trial: int, times: int, output: Output) -> None:
    """Try a trial's point again, each time with another seed: how much of its lead is luck?"""
    _told(client, client.repeat(sweep, trial, times), output)


@command.command("cancel")
@_SWEEP
@click.argument("trial", metavar="TRIAL", type=click.IntRange(0))
@with_sweep
@output_option()
def cancel_command(client: Sweeps, sweep: str, trial: int, output: Output) -> None:
    """End the trial with that number (TRIAL); the sweep goes on without it."""
    _told(client, client.cancel(sweep, trial), output)


for verb in (pause, resume, stop, sweep_report.command):
    command.add_command(verb)


def _looked(client: Sweeps, ref: str) -> tuple[FullJob, list[TrialRecord]]:
    """
    Raises:
        ConflictError: the job is no sweep.
    """
    from epochal.ledger.states import JobKind

    job = client.job(ref)
    if job.kind is not JobKind.SWEEP:
        raise ConflictError(f"{job.id} is no sweep", f"`epochal status {job.id}` shows it")
    return job, client.trials(job.id)


def _show(client: Sweeps, job: FullJob, trials: list[TrialRecord], limit: int, output: Output) -> None:
    from epochal.cli.sweep_view import columns, facts, row
    from epochal.ledger.sweep_values import best_first

    ordered = best_first(trials, job.spec["objective"]["mode"])
    if output is Output.NAME:
        render.records([{"number": one.number} for one in ordered], ["number"], output)
        return
    if output is not Output.TABLE:
        render.document({**job.to_dict(), "trials": [one.to_dict() for one in ordered]}, output)
        return
    render.document(facts(job, trials))
    render.text("")
    names = columns(job.spec["sweep"]["space"])
    spare = ("ran", "run", "message", *reversed(names.values()))
    rows = [row(one, names) for one in ordered[:limit]]
    render.records(rows, [*row(None, names)], title="trials, the best first", spare=spare)
    render.part(min(limit, len(ordered)), len(ordered), f"--limit {len(ordered)}", "trials")
    if typed := client.goes_on(job):
        render.message(f"it goes on with `{typed}`")


def _follow(client: Sweeps, ref: str, limit: int, output: Output) -> int:
    """On a terminal the whole of it again and again; else a line for each change, and the whole at the end."""
    from epochal.cli.sweep_view import summary
    from epochal.ledger.states import JobState

    drawn, said = render.draws() and output is Output.TABLE, ""
    job: FullJob | None = None
    while True:
        try:
            job, trials = _looked(client, ref)
        except UnreachableError as error:
            if job is None:  # nobody has ever answered there
                raise
            render.message(f"{error}; trying again")
            time.sleep(_LOOK_SECONDS)
            continue
        ref, is_over = job.id, job.state.is_terminal or client.goes_on(job) != ""
        if drawn:
            render.clear()
        if drawn or is_over:
            _show(client, job, trials, limit, output)
        elif (now := summary(job, trials)) != said:
            render.message(said := now)
        if is_over:
            return 0 if job.state is JobState.SUCCEEDED else 1
        time.sleep(_LOOK_SECONDS)


def _point(values: tuple[str, ...]) -> dict[str, Any]:
    from epochal.spec.source import parse_value

    point: dict[str, Any] = {}
    for value in values:
        path, equals, text = value.partition("=")
        if not equals or not path.strip():
            raise UsageError(f"expected PATH=VALUE, got {value!r}", "such as train.optimizer.lr=0.01")
        try:
            point[path.strip()] = parse_value(text).plain()
        except SpecError as error:
            raise UsageError(
                f"{path}: {error.problems[0].message}", "put text with special characters in quotes"
            ) from error
    return point


def _told(client: Sweeps, job: Job, output: Output) -> None:
    """The sweep as it is now, and when it does what it was asked."""
    from epochal.cli.commands.job_actions import show

    show([job], output)
    if typed := client.goes_on(job):
        render.message(f"it does that once it goes on: `{typed}`")
    elif output is Output.TABLE:
        render.message(f"follow it with `epochal sweep status -f {job.id}`")
