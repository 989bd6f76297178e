"""Hosts and URLs: what stays on this machine, and what of a URL may be shown."""

from __future__ import annotations

import errno
import ipaddress
import re
import secrets
import socket

LOOPBACK = "127.0.0.1"

_NEVER_GIVEN_OUT = range(20_000, 30_000)
"""Ray gives its workers 10002 to 19999, Kubernetes its services 30000 to 32767, systems to connections what follows."""

_CREDENTIALS = re.compile(
    # As it should be, or with a bare `/`, `?` or `#` in the password: what follows a colon is no port then.
    r"(?<=://)(?:[^/?#\s]*@|[^/?#\s@\[]*:(?!\d*(?:[/?#\s]|$))\S*@)"
)
_SECRET_PARAMETERS = re.compile(
    # Of a query, signed URLs included; and of other addresses and settings (`host=db password=...`), by names that
    # have no other meaning: `eos_token=2` is none.
    r"(?i)((?<=[?&;])(?:pwd|secret|token|sig|x-amz-(?:signature|credential|security-token))"
    r"|(?<!\w)(?:\w+_)?(?:(?:ssl)?password|passwd|(?:api|access|secret)_?(?:access_?)?key"
    r"|(?:access|auth|session|refresh)_?token))=[^&;#\s'\"]*"
)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on ``host``, a name or an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free_port(host: str = LOOPBACK) -> int:
    """
    A port that nobody listens on right now, of those that no system and no Ray gives out by itself: one of theirs
    could be somebody's connection before it is listened on.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        while True:
            port = secrets.choice(_NEVER_GIVEN_OUT)
            try:
                probe.bind((host, port))
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE:
                    raise
            else:
                return port


def http_url(host: str, port: int) -> str:
    """
    >>> http_url("::1", 8700)
    'http://[::1]:8700'
    """
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def has_password(url: str) -> bool:
    """
    >>> has_password("postgresql://ada:secret@db/epochal"), has_password("postgresql://db/epochal?password=secret")
    (True, True)
    >>> has_password("postgresql://ada@db/epochal")
    False
    """
    named = _CREDENTIALS.search(url)
    return (named is not None and ":" in named[0]) or _SECRET_PARAMETERS.search(url) is not None


def without_password(text: str) -> str:
    """The URL, or a text with URLs in it, without users and passwords: what may be printed, logged, sent or stored.

    >>> without_password("https://ada:secret@mlflow.example.org/team")
    'https://mlflow.example.org/team'
    >>> without_password("cannot open postgresql://db/epochal?password=secret&sslmode=require")
    'cannot open postgresql://db/epochal?password=***&sslmode=require'
    """
    return _SECRET_PARAMETERS.sub(r"\1=***", _CREDENTIALS.sub("", text))
