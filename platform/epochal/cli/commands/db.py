"""`epochal db`: look after the ledger's database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from epochal.cli import render
from epochal.cli.options import PASSWORD_OF_LEDGER, retain_option, without_passwords
from epochal.settings import Retention

_ledger_option: Callable[[Any], Any] = click.option(
    "--ledger",
    metavar="URL",
    envvar="EPOCHAL_LEDGER",
    callback=without_passwords(PASSWORD_OF_LEDGER),
    help="sqlite:///PATH or postgresql://USER@HOST/DATABASE.  [default: that of `epochal up`]",
)


@click.group("db")
def command() -> None:
    """Look after the ledger's database."""


@command.command("upgrade")
@_ledger_option
def upgrade_command(ledger: str | None) -> None:
    """Bring the tables to this version's, with all that is in them; create them where there are none.

    The server and `epochal run` do so by themselves when they start. Back up first: there is no way back.
    """
    from epochal.ledger.maintenance import upgrade

    before, after = upgrade(_url(ledger))
    if before == after:
        render.message(f"nothing to do: the ledger has version {after}")
    else:
        render.message(f"upgraded from version {before} to {after}" if before else f"created with version {after}")


@command.command("backup")
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@_ledger_option
def backup_command(file: Path, ledger: str | None) -> None:
    """Copy a SQLite ledger to the new FILE; whoever uses it meanwhile is not disturbed.

    To restore it, stop the server and put the copy in the ledger's place. For PostgreSQL use pg_dump.
    """
    from epochal.ledger.maintenance import back_up

    back_up(_url(ledger), file)
    render.message("backed up to:")
    render.text(str(file))


@command.command("prune")
@retain_option("events", "jobs")
@_ledger_option
def prune_command(retention: Retention, ledger: str | None) -> None:
    """Delete what the ledger knows of jobs that ended long ago. The server does so by itself, once an hour.

    A file of SQLite becomes no smaller: what is free is used again.
    """
    from epochal.ledger.ledger import Ledger
    from epochal.ledger.maintenance import require_file

    require_file(_url(ledger))
    with Ledger.open(_url(ledger), upgrade=False) as opened:
        deleted = list(opened.prune(retention.events, retention.jobs_at_least))
    for what in deleted:
        render.message(f"deleted the {what}")
    if not deleted:
        render.message("nothing to delete: no job has ended as long ago as --retain says")


def _url(ledger: str | None) -> str:
    from epochal.settings import home

    return ledger or home().served.ledger_url
