"""What the commands `stop`, `pause`, `resume` and `retry` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from epochal.cli import render
from epochal.cli.connection import with_client
from epochal.cli.options import output_option
from epochal.cli.render import Output

if TYPE_CHECKING:
    from epochal.client import Client
    from epochal.ledger.states import JobState
    from epochal.ledger.values import Job

Action = Callable[["Client", str, str], "Job"]
"""Client, job, message -> the job as it is then."""


def action_command(name: str, help_text: str, act: Action, settled: JobState | None = None) -> click.Command:
    """A command that does one thing to each JOB it is given; ``--wait`` waits until they are ``settled``."""

    @click.command(name, help=help_text)
    @click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
    @click.option("-m", "--message", default="", help="Why; kept with the job's events.")
    @with_client
    @output_option()
    def command(client: Client, jobs: tuple[str, ...], message: str, output: Output, waiting: bool = False) -> int:
        done, code = each(jobs, lambda ref: act(client, ref, message), output)
        if waiting and settled:
            done = [client.wait(job.id, until=[settled]) for job in done]
        show(done, output)
        return code

    if settled:
        command.params.append(click.Option(["--wait", "waiting"], is_flag=True, help=f"Wait until they are {settled}."))
    return command


def each(refs: Sequence[str], act: Callable[[str], Job], output: Output) -> tuple[list[Job], int]:
    """Do it to all; those that cannot be changed are told, and the first of them decides the exit code."""
    from epochal.errors import ConflictError, ForbiddenError, NotFoundError

    done: list[Job] = []
    codes: list[int] = []
    for ref in refs:
        try:
            done.append(act(ref))
        except (ConflictError, ForbiddenError, NotFoundError) as error:
            codes.append(error.exit_code)
            render.error(error, output if output is Output.JSON else Output.TABLE)
    return done, codes[0] if codes else 0


def show(jobs: Sequence[Job], output: Output) -> None:
    """The jobs as they are now; nothing where there are none, since why was told already."""
    from epochal.cli.job_view import state

    if output in (Output.JSON, Output.YAML):
        render.records([job.to_dict() for job in jobs], ["id"], output)
        return
    rows: list[dict[str, Any]] = [{"id": job.id, "state": state(job)} for job in jobs]
    if rows:
        render.records(rows, ["id", "state"], output, "jobs")
