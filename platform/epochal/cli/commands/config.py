"""`epochal config`: the servers that commands can talk to."""

from __future__ import annotations

import click

from epochal.cli import render
from epochal.cli.options import output_option
from epochal.cli.render import Output


@click.group("config")
def command() -> None:
    """List, choose and remove contexts: servers that `epochal login` has stored a token for.

    A command goes to --server or EPOCHAL_SERVER, else to --context or EPOCHAL_CONTEXT, else to the current context,
    else to what `epochal up` started on this machine. EPOCHAL_TOKEN is a token that goes before a stored one.
    """


@command.command("list")
@output_option()
def list_command(output: Output) -> None:
    """List the contexts; tokens are not shown."""
    from epochal.client.contexts import Config
    from epochal.settings import home

    config = Config.load(home().config)
    rows = [{**one.to_dict(), "current": one.name == config.current} for one in config.contexts.values()]
    render.records(rows, ["name", "server", "has_token", "current"], output, "contexts")


@command.command("show")
@click.option("--server", metavar="URL", help="As another command would get it.")
@click.option("--context", metavar="NAME", help="As another command would get it.")
@output_option(Output.TABLE, Output.JSON, Output.YAML)
def show_command(server: str | None, context: str | None, output: Output) -> None:
    """Show which server commands go to, what says so, and where that is kept."""
    from epochal.client.address import find_address
    from epochal.settings import home

    found = find_address(server, context)
    facts = {"server": found.server, "named_by": found.named_by, "has_token": found.token is not None}
    render.document({**facts, "file": str(home().config)}, output)


@command.command("use")
@click.argument("name", metavar="NAME")
def use_command(name: str) -> None:
    """Have commands go to this context from now on."""
    from epochal.client.contexts import Config
    from epochal.settings import home

    path = home().config
    config = Config.load(path).using(name)
    config.save(path)
    render.message(f"commands go to {config.context(name).server} now")


@command.command("remove")
@click.argument("name", metavar="NAME")
def remove_command(name: str) -> None:
    """Forget a context and its token. The token stays good until it is revoked on the server."""
    from epochal.client.contexts import Config
    from epochal.settings import home

    path = home().config
    Config.load(path).without(name).save(path)
    render.message(f"{name} is forgotten")
