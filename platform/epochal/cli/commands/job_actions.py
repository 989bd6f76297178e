"""`epochal stop`, `pause`, `resume` and `retry`: one thing done to each job that is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from epochal.cli import render
from epochal.cli.connection import connect, server_options
from epochal.cli.options import grace_option, output_option
from epochal.cli.render import Output
from epochal.errors import UsageError
from epochal.ledger.states import JobState
from epochal.units import Duration

if TYPE_CHECKING:
    from epochal.ledger.values import Job


def _action_command(name: str, help_text: str, settled: JobState | None = None) -> click.Command:
    """The command that calls the client's method of that ``name`` for each JOB it is given. One that ends workers, to
    be ``settled`` then, is told how long they have for that, and ``--wait`` waits for it."""

    @click.command(name, help=help_text)
    @click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
    @click.option("-m", "--message", default="", help="Why; kept with the job's events.")
    @server_options
    @output_option()
    def command(
        jobs: tuple[str, ...],
        server: str | None,
        context: str | None,
        output: Output,
        waiting: bool = False,
        now: bool = False,
        **asked: Any,
    ) -> int:
        if now and asked["grace"] is not None:
            raise UsageError("--now is --grace 0s: give one of them")
        if now:
            asked["grace"] = 0.0
        with connect(server, context) as client:
            done, code = _each(jobs, lambda ref: getattr(client, name)(ref, **asked), output)
            if waiting and settled:
                for job in done:
                    if job.state.is_active and job.grace:
                        allowed = Duration(job.grace)
                        render.message(f"{job.id} is {job.state.value}: its workers have {allowed} to save their state")
                done = [client.wait(job.id, until=[settled]) for job in done]
        show(done, output)
        return code

    if settled:
        command = grace_option(command)
        command.params += [
            click.Option(["--now"], is_flag=True, help="Kill the workers at once: what they have not saved is lost."),
            click.Option(["--wait", "waiting"], is_flag=True, help=f"Wait until they are {settled}."),
        ]
    return command


stop = _action_command(
    "stop",
    "End each JOB for good.\n\nOne that trains becomes STOPPING until its workers have saved their state and ended.",
    JobState.STOPPED,
)
pause = _action_command(
    "pause",
    "Have each JOB save its state and leave the cluster, or the queue.\n\n`epochal resume` goes on exactly there.",
    JobState.PAUSED,
)
resume = _action_command("resume", "Queue each paused JOB again; it goes on from its newest checkpoint.")
retry = _action_command(
    "retry",
    "Submit each JOB that has ended once more, as a new job with the same spec and code.\n\nPrints the new jobs.",
)


def _each(refs: Sequence[str], act: Callable[[str], Job], output: Output) -> tuple[list[Job], int]:
    """Do it to all; those that cannot be changed are told, and the first of them decides the exit code."""
    from epochal.errors import ConflictError, EpochalError, ForbiddenError, NotFoundError

    done: list[Job] = []
    codes: list[int] = []
    for ref in refs:
        try:
            done.append(act(ref))
        except (ConflictError, ForbiddenError, NotFoundError) as error:  # any other is not about this job
            codes.append(error.exit_code)
            render.error(error, output if output is Output.JSON else Output.TABLE)
        except (EpochalError, KeyboardInterrupt):
            if done:
                render.message(f"done before this: {', '.join(job.id for job in done)}")
            raise
    return done, codes[0] if codes else 0


def show(jobs: Sequence[Job], output: Output) -> None:
    """The jobs as they are now; nothing where there are none, since why was told already."""
    from epochal.cli.job_view import state

    if output in (Output.JSON, Output.YAML):
        render.records([job.to_dict() for job in jobs], ["id"], output)
        return
    rows: list[dict[str, Any]] = [{"id": job.id, "state": state(job), "message": job.message} for job in jobs]
    if rows:
        columns = ["id", "state", *(["message"] if any(job.message for job in jobs) else [])]
        render.records(rows, columns, output, "jobs")
