"""What the commands that talk to a server, or to Kubernetes, share: which one, and a client for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from epochal.cli import render
from epochal.errors import UsageError

if TYPE_CHECKING:
    from epochal.client import Client
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
        if not (error.name or "").startswith("kubernetes"):
            raise
        raise UsageError("the package `kubernetes` is not installed", "`pip install 'epochal[k8s]'`") from None
    return Api.connect(context)
