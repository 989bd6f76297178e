"""`epochal down`: end what `epochal up` started."""

from __future__ import annotations

import click

from epochal.cli import render


@click.command("down")
@click.option("--now", is_flag=True, help="End everything at once: jobs go on from their newest checkpoint.")
def command(now: bool) -> int:
    """End the services of `epochal up`; no process is left.

    The agent has its jobs save their state and hands them back to the queue; they go on after the next `epochal up`.
    """
    from epochal.local.services import down
    from epochal.settings import home

    render.message("everything has ended" if down(home(), now, render.message) else "nothing is up")
    return 0
