"""`epochal submit`: queue jobs on a server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from epochal.cli import render
from epochal.cli.connection import connect, server_options
from epochal.cli.options import output_option, set_option
from epochal.cli.render import Output
from epochal.errors import EpochalError, SpecError, UsageError

if TYPE_CHECKING:
    from epochal.client import Client
    from epochal.client.client import Submitted
    from epochal.client.submission import Submission
    from epochal.ledger.values import Job
    from epochal.spec.load import LoadedSpec


@dataclass(frozen=True)
class Attached:
    """What to do once the jobs are queued, and on which server."""

    follow: bool
    waiting: bool
    server: str | None
    context: str | None


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@set_option
@click.option("--name", help="The job's name, instead of the spec's.")
@click.option("--key", help="Your own id for this submission: submitting again with it gives the same job.")
@click.option("-f", "--follow", is_flag=True, help="Show progress and logs until the job ends. Ctrl-C detaches.")
@click.option("--wait", "waiting", is_flag=True, help="Wait until the jobs have ended. Ctrl-C detaches.")
@click.option("--no-check", is_flag=True, help="Do not look at the data here; the workers do, once they start.")
@click.option("--dry-run", is_flag=True, help="Check the spec and print what would be sent; send nothing.")
@server_options
@output_option()
def command(
    files: tuple[str, ...],
    overrides: tuple[str, ...],
    name: str | None,
    key: str | None,
    no_check: bool,
    dry_run: bool,
    output: Output,
    **how: Any,
) -> int:
    """Queue a job from each job spec FILE (`-` reads standard input).

    Nothing is queued where one of them is wrong, or could not be trained, as `plan` tells, where this machine has its
    data and torch. Exit code: 0 they are queued (with --follow or --wait: they
    succeeded), 1 a job failed, was stopped, or is paused as its agent was lost again and again, 2 a spec is wrong.
    """
    attached = Attached(**how)
    _check(files, name, key, attached)
    look = not (no_check or dry_run)
    prepared = _prepared(files, (*overrides, *([f"name={name}"] if name else [])), look)
    if dry_run:
        return _show_prepared(prepared, output)
    with connect(attached.server, attached.context) as client:
        submitted = _submit(client, prepared, key)
        _warn_of_room(client, prepared)
        if attached.follow or attached.waiting:
            return _stay(client, submitted, attached.follow, output)
        _show(submitted, output)
    return 0


def _check(files: Sequence[str], name: str | None, key: str | None, attached: Attached) -> None:
    for option, given in (("--name", name), ("--key", key), ("--follow", attached.follow)):
        if given and len(files) > 1:
            raise UsageError(f"{option} is for one job at a time, not {len(files)}", "--wait waits for several")
    if files.count("-") > 1:
        raise UsageError("standard input can be read once")


def _prepared(files: Sequence[str], overrides: Sequence[str], look: bool) -> list[Submission]:
    """All of them, or none with every problem of every file; ``look`` at their data, too."""
    from epochal.client.submission import load, prepare
    from epochal.settings import home

    loaded, wrong = [], []
    for file in files:
        try:
            loaded.append(load(file, overrides))
            if look:
                _look(loaded[-1])
        except SpecError as error:
            wrong.append(error)
    for one in wrong[:-1]:
        render.error(one)
    if wrong:
        raise wrong[-1]
    prepared = [prepare(one, home()) for one in loaded]
    for submission in prepared:
        for text in submission.warnings:
            render.warning(text)
    return prepared


def _look(loaded: LoadedSpec) -> None:
    """Refuse what its workers would refuse, as far as this machine can tell."""
    spec = loaded.spec
    if why := _out_of_reach(loaded):
        render.message(f"{loaded.source}: not checked with its data: {why}")
        return
    from epochal.catalog.build import build_task, load_data
    from epochal.spec.section import is_import_path
    from epochal.training.check import check
    from epochal.training.plan import plan

    try:
        data = load_data(spec.data, loaded.folder)
        if is_import_path(spec.model.name):  # what can be said without running its code, which a plan would
            check(spec, data, build_task(spec.task, spec.data, data.info))
        else:
            plan(spec, loaded.folder, data)
    except SpecError as error:
        raise loaded.placed(error) from error


def _out_of_reach(loaded: LoadedSpec) -> str:
    """Why its data cannot be looked at here; empty where it can."""
    from glob import glob
    from importlib.util import find_spec
    from os.path import expanduser  # pathlib's raises for a user that there is not
    from re import sub

    from epochal.catalog.providers import absent, is_provided
    from epochal.spec.section import is_import_path

    spec = loaded.spec
    if spec.sweep is not None:
        return "each trial of a sweep is, by its workers"
    if any(is_import_path(one.name) for one in (spec.data, spec.task) if one is not None):
        return "it is read by code of your own, which `epochal plan` runs"
    if find_spec("torch") is None:
        return "torch is not installed here"
    if is_provided(spec.model.name) and (hint := absent(spec.model.name)):
        return f"{spec.model.name} is not installed here: {hint}"
    paths = [spec.data.params.get(name) for name in ("path", "validation_path", "test_path")]
    named = [one for one in paths if isinstance(one, str)]
    # `part-{000..127}.tar` names many files: one of them is enough.
    files = {one: loaded.folder / expanduser(sub(r"\{\d+\.\.\d+\}", "*", one)) for one in named}
    away = [one for one, file in files.items() if not file.exists() and not glob(str(file), recursive=True)]
    return f"{away[0]} is not on this machine" if away else ""


def _show_prepared(prepared: Sequence[Submission], output: Output) -> int:
    if output is Output.NAME:
        render.records([{"name": one.name} for one in prepared], ["name"], output)
        return 0
    documents: list[dict[str, Any]] = []
    for one in prepared:
        package = one.package
        code = {"digest": package.digest, "bytes": package.size, "files": list(package.files)} if package else None
        documents.append({"spec": one.spec, "code": code, "tags": one.tags})
    form = Output.YAML if output is Output.TABLE else output
    if len(documents) == 1:
        render.document(documents[0], form)
    else:
        render.records(documents, ["spec"], form)
    return 0


def _submit(client: Client, prepared: Sequence[Submission], key: str | None) -> list[Submitted]:
    submitted: list[Submitted] = []
    for one in prepared:
        try:
            result = client.submit(one, key=key)
        except (EpochalError, KeyboardInterrupt):
            if submitted:
                render.message(f"queued before this: {', '.join(job.id for job in submitted)}")
            raise
        submitted.append(result)
        if not result.created:
            render.message(f"{result.id} was submitted with this key before; it is {result.job.state.value}")
        elif result.same_as:
            render.message(f"{result.same_as} has the same spec and code, and has already succeeded")
    return submitted


def _warn_of_room(client: Client, prepared: Sequence[Submission]) -> None:
    """The jobs are queued all the same: another agent may come."""
    from epochal.client.room import why_never

    try:
        agents = client.agents()
    except EpochalError as error:
        render.message(f"whether any cluster could hold it is not known: {error}")
        return
    for one in prepared:
        if why := why_never(one.spec, agents):
            render.warning(f"{one.name} waits for an agent with more room: {why}")


def _show(submitted: Sequence[Submitted], output: Output) -> None:
    if output in (Output.JSON, Output.YAML):
        render.records([one.to_dict() for one in submitted], ["id"], output)
        return
    rows = [{"id": one.id, "state": one.job.state.value, "priority": one.job.priority} for one in submitted]
    render.records(rows, ["id", "state", "priority"], output, "jobs")
    if output is Output.TABLE and len(submitted) == 1:
        render.message(f"follow it with `{_follows(submitted[0].job)}`")


def _follows(job: Job) -> str:
    """The command that comes back to it."""
    return f"epochal {'sweep status' if job.kind == 'sweep' else 'logs'} -f {job.id}"


def _stay(client: Client, submitted: Sequence[Submitted], follow: bool, output: Output) -> int:
    """Stay until all have ended; Ctrl-C leaves them to themselves."""
    from epochal.cli.follow import Follower
    from epochal.cli.job_view import facts, show_jobs
    from epochal.cli.progress import display
    from epochal.ledger.states import JobState

    for one in submitted:
        render.message(f"submitted {one.id}; Ctrl-C detaches, and the job goes on")
    ended = []
    try:
        for one in submitted:
            with display(live=render.is_terminal(sys.stderr), quiet=False) as shown:
                ended.append(Follower(client, one.id, shown, follow).follow())
    except KeyboardInterrupt:
        for one in submitted:
            back = _follows(one.job)
            render.message(f"{one.id} goes on; come back with `{back}`, end it with `epochal stop {one.id}`")
        return 130
    if output is Output.TABLE and len(ended) == 1:
        render.document(facts(client.job(ended[0].id), client.attempts(ended[0].id), client.now()))
    else:
        show_jobs(ended, client.now(), output)
    return 0 if all(job.state is JobState.SUCCEEDED for job in ended) else 1
