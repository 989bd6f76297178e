"""`epochal events`: what happened to a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from epochal.cli import render
from epochal.cli.connection import with_client
from epochal.cli.options import output_option
from epochal.cli.render import Output

if TYPE_CHECKING:
    from epochal.client import Client
    from epochal.ledger.values import Event

_COLUMNS = ("id", "at", "attempt", "event", "state", "reason", "message")


@click.command()
@click.argument("job", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended. Ctrl-C leaves it alone.")
@with_client
@output_option()
def command(client: Client, job: str, follow: bool, output: Output) -> None:
    """List what happened to a job, the oldest first: every change of state, and why.

    With `--follow -o json`, one object a line.
    """
    events = client.events(job, follow=follow)
    if follow:
        for event in events:
            _show(event, output)
    elif output in (Output.JSON, Output.YAML):
        render.records([event.to_dict() for event in events], ["id"], output)
    else:
        found = list(events)
        render.records([_row(event) for event in found], _COLUMNS, output, "events")
        if found and found[0].previous is not None:  # a job's own first event has no state before it
            render.message("what happened before is not kept: the server deletes old events")


def _show(event: Event, output: Output) -> None:
    if output is Output.JSON:
        render.line(event.to_dict())
    elif output is Output.YAML:
        render.records([event.to_dict()], ["id"], output)
    elif output is Output.NAME:
        render.text(str(event.id))
    else:
        row = _row(event)
        words = [f"{row['at']:%Y-%m-%d %H:%M:%S}", event.kind, event.state.value, row["reason"], row["message"]]
        render.text("  ".join(word for word in words if word))


def _row(event: Event) -> dict[str, Any]:
    from epochal.cli.job_view import moment

    said = event.message or ", ".join(f"{name}={render.plain(value)}" for name, value in event.detail.items())
    first, more, _ = said.strip().partition("\n")
    return {
        "id": event.id,
        "at": moment(event.at),
        "attempt": event.epoch or "",
        "event": event.kind,
        "state": event.state.value,
        "reason": event.reason.value if event.reason else event.detail.get("reason", ""),  # that of a trial
        "message": render.printable(f"{first} ... (-o json has all of it)" if more else first),
    }
