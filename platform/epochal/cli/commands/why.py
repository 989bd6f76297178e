"""`epochal why`: why a job waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from epochal.cli import render
from epochal.cli.connection import with_client
from epochal.cli.options import output_option
from epochal.cli.render import Output

if TYPE_CHECKING:
    from epochal.client import Client


@click.command()
@click.argument("job", metavar="JOB")
@with_client
@output_option(Output.TABLE, Output.JSON, Output.YAML)
def command(client: Client, job: str, output: Output) -> None:
    """Say why a job waits, behind which jobs, what is missing, and the smallest change that would start it."""
    why = client.why(job)
    if output is not Output.TABLE:
        render.document(why.to_dict(), output)
        return
    shown = {"why": why.message, "behind": ", ".join(why.ahead), "missing": why.shortfall, "to start it": why.change}
    render.document({name: value for name, value in shown.items() if value})
