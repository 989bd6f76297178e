"""`epochal quota`: what users and queues may take together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from epochal.cli import render
from epochal.cli.connection import with_client
from epochal.cli.options import AMOUNT, output_option
from epochal.cli.render import Output
from epochal.errors import UsageError

if TYPE_CHECKING:
    from epochal.client import Client

_COLUMNS = ("kind", "name", "jobs", "cpus", "gpus")
_KIND = click.Choice(["user", "queue"])


@click.group("quota")
def command() -> None:
    """List and set what the running jobs of a user, or of a queue, may take together."""


@command.command("list")
@with_client
@output_option()
def list_command(client: Client, output: Output) -> None:
    """List the limits; the name `*` is for each user or queue that has none of its own."""
    rows = [quota.to_dict() for quota in client.quotas()]
    if output is Output.NAME:
        rows = [{"kind": f"{row['kind']}/{row['name']}"} for row in rows]
    render.records(rows, _COLUMNS, output, "quotas")


@command.command("set")
@click.argument("kind", metavar="KIND", type=_KIND)
@click.argument("name", metavar="NAME")
@click.option("--jobs", type=click.IntRange(0), help="Jobs that run at once.")
@click.option("--cpus", type=AMOUNT, help="CPUs of all of them.")
@click.option("--gpus", type=AMOUNT, help="GPUs of all of them.")
@with_client
@output_option()
def set_command(
    client: Client, kind: str, name: str, jobs: int | None, cpus: float | None, gpus: float | None, output: Output
) -> None:
    """Limit a user or a queue (KIND) of this NAME; what is not given has no limit. `*` is everybody else."""
    if jobs is None and cpus is None and gpus is None:
        raise UsageError("give at least one limit", f"`epochal quota delete {kind} {name}` lifts them")
    quota = client.set_quota(kind, name, jobs=jobs, cpus=cpus, gpus=gpus).to_dict()
    render.records([quota], _COLUMNS, output, "quotas")


@command.command("delete")
@click.argument("kind", metavar="KIND", type=_KIND)
@click.argument("name", metavar="NAME")
@with_client
def delete_command(client: Client, kind: str, name: str) -> None:
    """Lift the limits of a user or a queue (KIND) of this NAME."""
    client.delete_quota(kind, name)
    render.message(f"the {kind} {name} has no limits of its own now")
