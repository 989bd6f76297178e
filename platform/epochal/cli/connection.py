"""What the commands that talk to a server, or to Kubernetes, share: which one, and a client for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from epochal.cli import render
from epochal.errors import NotFoundError, UnreachableError, UsageError

if TYPE_CHECKING:
    from epochal.client import Client
    from epochal.client.own_sweeps import OwnSweeps
    from epochal.cluster.api import Api

Command = TypeVar("Command", bound=Callable[..., Any])


def server_options(command: Command) -> Command:
    """``--server`` and ``--context``: the command gets ``server`` and ``context`` for ``connect``."""
    named = click.option("--context", metavar="NAME", help="One of `epochal config list`, instead of the current one.")
    at = click.option("--server", metavar="URL", help="Talk to this server.  [default: the current context's]")
    return at(named(command))


def with_client(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--server`` and ``--context``: the command gets ``client: Client``, open while it runs."""

    @functools.wraps(command)
    def connected(server: str | None, context: str | None, **arguments: Any) -> Any:
        with connect(server, context) as client:
            return command(client=client, **arguments)

    return server_options(connected)


def with_sweep(command: Callable[..., Any]) -> Callable[..., Any]:
    """As ``with_client``, for a command on one ``sweep``: the client may be that of this home's own ledger, where the
    sweep is one of `epochal run` and no server has it."""

    @functools.wraps(command)
    def connected(server: str | None, context: str | None, sweep: str, **arguments: Any) -> Any:
        with _holding(sweep, server, context) as client:
            return command(client=client, sweep=sweep, **arguments)

    return server_options(connected)


def _holding(sweep: str, server: str | None, context: str | None) -> Client | OwnSweeps:
    from epochal import settings

    home = settings.home()
    # A server's goes first, where both have one of that name.
    if server is None and context is None and home.ledger.exists():
        from epochal.client.own_sweeps import OwnSweeps

        try:
            with connect(None, None) as client:
                client.job(sweep)
        except (NotFoundError, UnreachableError):
            if (own := OwnSweeps.with_sweep(home, sweep)) is not None:
                render.message(f"{sweep} is of `epochal run`, on this machine")
                return own
    return connect(server, context)


def connect(server: str | None, context: str | None) -> Client:
    """A client of the server that the options name, else of the one that ``client.address`` finds."""
    from epochal.client import Client

    return Client(server, context=context, notice=render.message)


def kubernetes_api(context: str | None = None) -> Api:
    """The API server of Kubernetes, by a context of the kubeconfig; in a pod its own.

    Raises:
        UsageError: the package for it is not installed.
    """
    try:
        from epochal.cluster.api import Api
    except ImportError as error:
        if not (error.name or "").startswith("kubernetes"):  # another is missing
            raise
        raise UsageError("the package `kubernetes` is not installed", "`pip install 'epochal[k8s]'`") from None
    return Api.connect(context)
