"""Which server a command talks to, and with which token.

In this order: ``--server`` or ``EPOCHAL_SERVER``; ``--context`` or ``EPOCHAL_CONTEXT``; the current context; the
services that ``epochal up`` started on this machine. The token for a named server is ``EPOCHAL_TOKEN``, else that of
the context with the same URL, else, for this machine's own services, the one that ``up`` wrote.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from epochal.client.checks import checked_token, checked_url, stays_here
from epochal.client.contexts import Config
from epochal.errors import UnreachableError, UsageError
from epochal.redaction import said
from epochal.settings import Home, home

TOKEN_VARIABLE = "EPOCHAL_TOKEN"
SERVER_VARIABLE = "EPOCHAL_SERVER"
CONTEXT_VARIABLE = "EPOCHAL_CONTEXT"


@dataclass(frozen=True)
class Address:
    """A server's URL, the token for it, and what named it: an option, a variable, a context, or ``epochal up``."""

    server: str
    token: str | None = field(repr=False)
    named_by: str


def find_address(
    server: str | None = None, context: str | None = None, environ: Mapping[str, str] = os.environ
) -> Address:
    """See the module.

    Raises:
        UsageError: both a server and a context were named, or the URL is none.
        NotFoundError: there is no such context.
        UnreachableError: nothing says which server.
    """
    if server is not None and context:
        raise UsageError("name a server or a context, not both")
    place = home(environ)
    named_by = "--server" if server is not None else SERVER_VARIABLE
    if server is not None or (not context and environ.get(SERVER_VARIABLE)):
        url = checked_url(environ[SERVER_VARIABLE] if server is None else server)
        token = _token_of(environ) or _token_of_context(url, place)
        if token is None and stays_here(url) and url == local_server(place):  # to no other, whatever the file says
            token = read_token(place.token)
        return Address(url, token, named_by)
    config = Config.load(place.config)
    name = context or environ.get(CONTEXT_VARIABLE) or config.current
    if name:
        chosen = config.context(name)
        return Address(chosen.server, _token_of(environ) or chosen.token, f"context {name}")
    if local := local_server(place):
        return Address(local, _token_of(environ) or read_token(place.token), "epochal up")
    raise UnreachableError(
        "no server is known to this machine", "`epochal up` starts one here; `epochal login` connects to another"
    )


def _token_of(environ: Mapping[str, str]) -> str | None:
    token = environ.get(TOKEN_VARIABLE)
    return checked_token(token, TOKEN_VARIABLE) if token else None


def read_token(path: Path) -> str | None:
    """The token in a file; None where there is no file.

    Raises:
        UsageError: the file cannot be read, or is empty.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the token in {path} cannot be read: {said(error)}") from error
    if not token:
        raise UsageError(f"{path} holds no token: it is empty")
    return checked_token(token, f"what {path} holds")


def local_server(home: Home) -> str | None:
    """The URL of the server that ``epochal up`` runs here; None where ``up`` has not been run, or ``down`` since.

    From the file in which its supervisor tells how things are: what is in ``local`` may not be here, in a thin client.
    """
    try:
        stored = json.loads((home.services / "state.json").read_text(encoding="utf-8"))
        runs = [one for one in stored["services"] if one["name"] == "server" and one.get("state") != "stopped"]
        return next((str(one["url"]) for one in runs if one.get("url")), None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # of another version, or damaged: `find_address` then says that no server is known


def _token_of_context(server: str, place: Home) -> str | None:
    config = Config.load(place.config)
    found = [one for one in config.contexts.values() if one.server == server and one.token]
    current = [one for one in found if one.name == config.current]  # several may be of one server, as other users
    return next((one.token for one in [*current, *found]), None)
