"""`epochal logs`: what a job's workers print."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from epochal.cli import render
from epochal.cli.connection import with_client
from epochal.cli.options import output_option
from epochal.cli.render import Output

if TYPE_CHECKING:
    from epochal.client import Client


@click.command()
@click.argument("job", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended. Ctrl-C leaves it alone.")
@click.option("--rank", type=click.IntRange(0), help="Only of this rank.")
@click.option("--attempt", type=click.IntRange(1), help="Only of this attempt.")
@click.option("--tail", type=click.IntRange(1), metavar="LINES", help="Only the last lines of each rank.")
@with_client
@output_option(Output.TABLE, Output.JSON)
def command(
    client: Client,
    job: str,
    follow: bool,
    rank: int | None,
    attempt: int | None,
    tail: int | None,
    output: Output,
) -> None:
    """Print what the workers of a job print, each line with its rank; they outlive the cluster.

    With `-o json`, one object a line.
    """
    from epochal.cli.log_lines import Lines

    lines, silent = Lines(), True
    show = _printer(output, with_rank=rank is None)
    for chunk in client.logs(job, rank=rank, attempt=attempt, tail=tail, follow=follow):
        silent = False
        for line in lines.of(chunk):
            show(*line)
    for line in lines.rest():
        show(*line)
    if silent:
        render.message("its workers have printed nothing")


def _printer(output: Output, with_rank: bool) -> Callable[[int, int, str], Any]:
    if output is Output.JSON:
        return lambda attempt, rank, text: render.line({"attempt": attempt, "rank": rank, "text": text})
    told: list[int] = []

    def show(attempt: int, rank: int, text: str) -> None:
        if attempt not in told:
            if told:
                render.message(f"--- attempt {attempt}")
            told.append(attempt)
        render.text(f"[rank {rank}] {render.printable(text)}" if with_rank else render.printable(text))

    return show
