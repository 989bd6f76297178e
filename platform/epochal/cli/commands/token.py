"""`epochal token`: who may use a server."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from epochal.cli import render
from epochal.cli.connection import with_client
from epochal.cli.options import duration, output_option
from epochal.cli.render import Output

if TYPE_CHECKING:
    from epochal.client import Client

_ROLES = ("viewer", "user", "admin", "agent")


@click.group("token")
def command() -> None:
    """Create, list and revoke tokens. For administrators."""


@command.command("create")
@click.argument("user", metavar="USER")
@click.option("--role", type=click.Choice(_ROLES), default="user", show_default=True, help="What it allows.")
@click.option("--name", default="", help="What it is for.")
@click.option(
    "--ttl", metavar="DURATION", callback=duration,
    help="How long it is good for, such as 30d.  [default: until revoked]",
)  # fmt: skip
@with_client
@output_option(Output.TABLE, Output.JSON, Output.YAML)
def create_command(client: Client, user: str, role: str, name: str, ttl: float | None, output: Output) -> None:
    """Make a token for USER and print it, this once: only its digest is stored.

    viewer: looks. user: submits, and changes its own jobs. admin: everything. agent: runs jobs as the agent USER.
    """
    token, secret = client.create_token(user, role, name=name, ttl_seconds=ttl)
    if output is not Output.TABLE:
        render.document({**token.to_dict(), "secret": secret}, output)
        return
    render.message(f"token {token.id} of {user} ({role}); it is not shown again:")
    render.text(secret)


@command.command("list")
@with_client
@output_option()
def list_command(client: Client, output: Output) -> None:
    """List tokens, without their secrets."""
    tokens = [token.to_dict() for token in client.tokens()]
    rows = tokens if output in (Output.JSON, Output.YAML) else [_row(token) for token in tokens]
    columns = ["id", "user", "role", "name", "created", "expires", "revoked"]
    render.records(rows, columns, output, "tokens")


@command.command("revoke")
@click.argument("tokens", metavar="ID...", nargs=-1, required=True)
@with_client
def revoke_command(client: Client, tokens: tuple[str, ...]) -> None:
    """Make tokens worthless, at once."""
    for identity in tokens:
        client.revoke_token(identity)
        render.text(identity)


def _row(token: dict[str, Any]) -> dict[str, Any]:
    times = {name: token.get(f"{name}_at") for name in ("created", "expires", "revoked")}
    return {**token, **{name: datetime.fromisoformat(at).astimezone() if at else "" for name, at in times.items()}}
