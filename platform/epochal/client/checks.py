"""What says where to go and who is asking, checked before it is sent."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import httpx

from epochal.errors import UsageError
from epochal.urls import is_loopback, without_password

LOGIN = "`epochal login` stores a token; an administrator makes one with `epochal token create USER`"
_SUCH_AS = "such as http://127.0.0.1:8700"


def checked_url(server: str) -> str:
    """The URL without a slash at its end.

    Raises:
        UsageError: it is none of a server, or holds a password.
    """
    shown = without_password(re.split(r"[?#]", server)[0])  # what follows may be a token
    if (wrong := _wrong_with(server)) is not None:
        raise UsageError(f"{shown!r} is not the URL of a server: {wrong[0]}", wrong[1])
    if "@" in urlsplit(server).netloc:
        raise UsageError("the URL of a server holds no user and no password", LOGIN)
    if shown != server:
        raise UsageError(
            f"the URL of a server has nothing after its path, and this one goes on after {shown!r}",
            f"the page's address is not needed: {shown.rstrip('/')}",
        )
    return server.rstrip("/")


def _wrong_with(server: str) -> tuple[str, str] | None:
    """What is wrong, and what to do."""
    if not server:
        return "it is empty", _SUCH_AS
    if not server.isprintable() or any(character.isspace() for character in server):
        return "it has a space, a line break or a control character in it", _SUCH_AS
    if server[0] in "'\"<[(":
        return "it stands in quotes or brackets", "give the URL alone"
    scheme, sign, _ = server.partition("://")
    if not sign:
        host = re.sub(r"(?i)^https?[:/]+", "", re.split(r"[?#@]", server)[0])
        return "it does not begin with http:// or https://", f"try http://{host}"
    if scheme.lower() not in ("http", "https"):
        return f"{scheme}:// is not http:// or https://", _SUCH_AS
    return _wrong_with_host(server)


def _wrong_with_host(server: str) -> tuple[str, str] | None:
    try:
        parts = urlsplit(server)
        # `parts.port` takes 0 and an empty one, and does not say what was wrong with others.
        host, port = parts.hostname, parts.netloc.rpartition("@")[2].rpartition("]")[2].rpartition(":")
        if port[1] and not (port[2].isdecimal() and 0 < int(port[2][:6]) < 2**16):  # int() refuses thousands of digits
            return "a port is a number from 1 to 65535", _SUCH_AS
        if not host:
            return "it names no host", _SUCH_AS
        httpx.URL(server)  # refuses what urlsplit lets pass, such as a host that IDNA has no form for
    except (ValueError, httpx.InvalidURL):
        return "no host can be called that", _SUCH_AS
    return None


def checked_token(token: str, source: str = "the token") -> str:
    """The token, which is not in the message where it is refused. ``source``: what holds it.

    Raises:
        UsageError: no header can carry it.
    """
    odd = next((place for place, character in enumerate(token, 1) if not "!" <= character <= "~"), None)
    if odd is None:
        return token
    found = token[odd - 1]
    kind = "a line break" if found in "\r\n" else "a space" if found.isspace() else "a character that is not ASCII"
    kind = kind if found.isprintable() or found.isspace() or not found.isascii() else "a control character"
    hint = "a token is one word, such as ep_ followed by letters, digits, - and _"
    raise UsageError(f"{source} is no token: it has {kind} at place {odd} of {len(token)}", hint)


def stays_here(server: str) -> bool:
    """Whether a URL stays on this machine."""
    return is_loopback(urlsplit(server).hostname or "")
