"""Hosts and URLs: what stays on this machine, and what of a URL may be shown."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import parse_qs, urlsplit

LOOPBACK = "127.0.0.1"

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on ``host``, a name or an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free_port(host: str = LOOPBACK) -> int:
    """A port that nobody listens on right now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


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
    try:
        parts = urlsplit(url)
    except ValueError:  # not a URL
        return False
    return bool(parts.password) or "password" in parse_qs(parts.query)


def without_password(url: str) -> str:
    """The URL without the user and the password in it.

    >>> without_password("https://ada:secret@mlflow.example.org/team")
    'https://mlflow.example.org/team'
    """
    return _CREDENTIALS.sub("", url)
