"""`epochal login`: connect this machine to a server."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from epochal.cli import render
from epochal.errors import ConflictError, UsageError


@click.command()
@click.argument("server", metavar="URL")
@click.option("--name", help="What to call it.  [default: the server's host name]")
@click.option(
    "--token-file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="FILE",
    help="Read the token there (`-`: standard input) instead of asking for it.",
)  # fmt: skip
def command(server: str, name: str | None, token_file: str | None) -> None:
    """Store a token for the server at URL, and have commands talk to it from now on.

    The token is asked for, tried, and kept in the home's config.yaml, which nobody else can read.
    """
    from epochal.client import Client
    from epochal.client.checks import checked_url, stays_here
    from epochal.client.contexts import Config, Context
    from epochal.settings import home

    url, path = checked_url(server), home().config
    called = name or urlsplit(url).hostname or url
    before = Config.load(path).contexts.get(called)
    if name is None and before is not None and before.server != url:
        hint = f"--name calls this one something else; --name {called} replaces {before.server}, and its token"
        raise ConflictError(f"{called} is {before.server} already", hint)
    context = Context(called, url, _token(token_file))
    if url.startswith("http://") and not stays_here(url):
        render.warning(f"{url} is not encrypted: whoever sees the traffic can take the token")
    with Client(url, context.token) as client:
        who = client.whoami()
    Config.load(path).having(context).save(path)
    render.message(f"{who['user']} ({who['role']}) at {url}; commands go there now")
    render.text(context.name)


def _token(token_file: str | None) -> str:
    from epochal.client.address import read_token
    from epochal.client.checks import checked_token

    if token_file and token_file != "-":
        return read_token(Path(token_file)) or ""
    if token_file is None and sys.stdin.isatty():
        return checked_token(str(click.prompt("Token", hide_input=True, err=True)).strip(), "what was typed")
    if token := sys.stdin.read().strip():
        return checked_token(token, "what standard input holds")
    raise UsageError("no token", "`epochal login URL` asks for it on a terminal; --token-file reads it")
