"""`epochal jobs`: the jobs of a server."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from epochal.cli import render
from epochal.cli.connection import with_client
from epochal.cli.options import output_option
from epochal.cli.render import Output
from epochal.errors import UnreachableError, UsageError
from epochal.ledger.states import JobState

if TYPE_CHECKING:
    from epochal.client import Client
    from epochal.ledger.values import Job

_WATCH_SECONDS = 2.0


@dataclass(frozen=True)
class Filters:
    """Which jobs, and how many of them; None is any."""

    states: tuple[str, ...]
    name: str | None
    user: str | None
    mine: bool
    queue: str | None
    limit: int

    def fit(self, job: Job) -> bool:
        """Whether a job has this user and this queue."""
        return self.user in (None, job.submitted_by) and self.queue in (None, job.queue)


@click.command()
@click.option(
    "--state", "states", multiple=True, type=click.Choice([*JobState], case_sensitive=False),
    help="Only jobs in this state. Repeatable.",
)  # fmt: skip
@click.option("--name", help="Only jobs of this name.")
@click.option("--user", help="Only jobs that this user submitted.")
@click.option("--mine", is_flag=True, help="Only jobs that you submitted.")
@click.option("--queue", help="Only jobs of this queue.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most this many.")
@click.option("--waiting", is_flag=True, help="What waits, in the order of its turn, each with why.")
@click.option("-w", "--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@with_client
@output_option()
def command(client: Client, waiting: bool, watch: bool, output: Output, **filters: Any) -> None:
    """List jobs, the newest first."""
    chosen = Filters(**filters)
    if chosen.mine and chosen.user:
        raise UsageError("--mine is --user with your own name: give one of them")
    if waiting and (chosen.states or chosen.name):
        raise UsageError("--waiting shows the queue: it goes with --user, --mine, --queue and --limit alone")
    if chosen.mine:
        chosen = replace(chosen, user=str(client.whoami()["user"]))
    show = _show_queue if waiting else _show_jobs
    if watch:
        render.clear()
    show(client, chosen, output)
    while watch:
        time.sleep(_WATCH_SECONDS)
        render.clear()
        try:
            show(client, chosen, output)
        except UnreachableError as error:
            render.message(f"{error}; trying again")


def _show_jobs(client: Client, chosen: Filters, output: Output) -> None:
    from epochal.cli.job_view import show_jobs

    found = client.jobs(
        states=chosen.states, name=chosen.name, user=chosen.user, queue=chosen.queue, limit=chosen.limit
    )
    show_jobs(found, client.now(), output)
    render.part(len(found), found.total, f"--limit {found.total}")


def _show_queue(client: Client, chosen: Filters, output: Output) -> None:
    from epochal.cli.job_view import queue_row
    from epochal.client.jobs import LONGEST_QUEUE

    # The server knows no filters here: its answer is the order of turns.
    every = client.queue(LONGEST_QUEUE if chosen.user or chosen.queue else chosen.limit)
    fitting = [entry for entry in every if chosen.fit(entry.job)]
    entries = fitting[: chosen.limit]
    if output in (Output.JSON, Output.YAML):
        render.records([entry.to_dict() for entry in entries], ["job"], output)
    else:
        rows = [queue_row(entry, client.now()) for entry in entries]
        render.records(rows, ["id", "position", "priority", "queue", "by", "waited", "why"], output, "jobs waiting")
    if len(entries) < len(fitting):
        render.part(len(entries), len(fitting), f"--limit {len(fitting)}")
    elif len(every) < every.total:
        longer = every.total > LONGEST_QUEUE
        rest = f"`epochal jobs --state QUEUED --limit {every.total}`" if longer else f"--limit {every.total}"
        render.part(len(every), every.total, rest)
