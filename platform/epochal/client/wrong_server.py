"""What answers where no Epochal server does, found out for the message."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from epochal.client.checks import stays_here
from epochal.errors import EpochalError, UnreachableError, UsageError
from epochal.settings import DEFAULT_SERVER_PORT
from epochal.urls import without_password

_SECONDS = 5.0
_OF_A_STRANGER = frozenset({200, 404, 405, 501})
"""What is said to a question for health by who does not know it; a proxy in front of ours has other answers."""
_WHERE = (
    f"Epochal's server is on port {DEFAULT_SERVER_PORT} where nothing else was asked for; "
    "`epochal config show` tells what names this one"
)


def explained(error: EpochalError, server: str) -> EpochalError:
    """What is behind an error of a call to ``server``, from which no answer of Epochal's has come; else ``error``."""
    parts = urlsplit(server)
    causes = list(_causes(error))
    if (proxy := _proxy(parts)) and any(isinstance(cause, httpx.TransportError) for cause in causes):
        hint = f"name {parts.hostname} in NO_PROXY where it is reached without one"
        return UnreachableError(f"{server} does not answer by way of the proxy {proxy}: {error.message}", hint)
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return UnreachableError(f"{server} does not answer: no host is called {parts.hostname!r}", _WHERE)
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        portless = "" if parts.port else f"it names no port, and Epochal's is {DEFAULT_SERVER_PORT}: "
        return UnreachableError(f"{server} does not answer: nothing listens there", f"{portless}{error.hint}")
    if any(isinstance(cause, httpx.TimeoutException) for cause in causes):
        return error
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        hint = "SSL_CERT_FILE=FILE names the certificates of your own authority"
        return UnreachableError(f"the certificate of {server} is not one that this machine trusts: {error}", hint)
    with httpx.Client(trust_env=not stays_here(server), timeout=_SECONDS) as http:
        is_tls = any(isinstance(cause, ssl.SSLError) for cause in causes)
        return _mistaken_url(http, parts, server, is_tls) or _stranger(http, parts, server) or error


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _proxy(parts: SplitResult) -> str | None:
    """The proxy that the environment names for this address."""
    host, proxies = parts.hostname or "", getproxies()
    named = proxies.get(parts.scheme) or proxies.get("all")
    return None if not named or stays_here(parts.geturl()) or proxy_bypass(host) else without_password(named)


def _mistaken_url(http: httpx.Client, parts: SplitResult, server: str, is_tls: bool) -> EpochalError | None:
    """Where an Epochal server would be at another URL of the same host and port, or may be."""
    beside = f"{parts.netloc}{parts.path}"
    if parts.scheme == "https" and is_tls and _answer(http, f"http://{parts.netloc}/") is not None:
        return UsageError(f"{server} speaks http, not https", f"try http://{beside}")
    if parts.scheme == "http" and _speaks_tls(parts):
        return UsageError(f"{server} speaks https, not http", f"try https://{beside}")
    origin = f"{parts.scheme}://{parts.netloc}"
    if parts.path and _is_epochal(_answer(http, f"{origin}/healthz")):
        return UsageError(f"there is no Epochal server at {server}: it is at {origin}", f"leave {parts.path} out")
    return None


def _stranger(http: httpx.Client, parts: SplitResult, server: str) -> EpochalError | None:
    origin = f"{parts.scheme}://{parts.netloc}"
    answer = _answer(http, f"{origin}/healthz")
    if answer is None or _is_epochal(answer):
        return None
    name = _name(http, origin)
    if not name and answer.status_code not in _OF_A_STRANGER:
        return None
    what = name or answer.headers.get("Server", "")[:60]
    said = f"what answers at {server} is not an Epochal server"
    return UnreachableError(f"{said}: that is {what}" if what else said, _WHERE)


def _name(http: httpx.Client, origin: str) -> str:
    version, health = _answer(http, f"{origin}/version"), _answer(http, f"{origin}/health")
    if version is not None and health is not None and version.is_success and health.text == "OK":
        return f"MLflow {version.text[:20]}"
    ray = _answer(http, f"{origin}/api/version")
    return "Ray's dashboard" if ray is not None and "ray_version" in ray.text[:1000] else ""


def _is_epochal(answer: httpx.Response | None) -> bool:
    return (
        answer is not None and answer.is_success and '"status":"ok"' in answer.text and "X-Request-Id" in answer.headers
    )


def _answer(http: httpx.Client, url: str) -> httpx.Response | None:
    """Without the token: whoever answers is not known."""
    with suppress(httpx.HTTPError, httpx.InvalidURL):
        return http.get(url)
    return None


def _speaks_tls(parts: SplitResult) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is only asked whether; nothing is sent
    where = (parts.hostname or "", parts.port or 80)
    with (
        suppress(OSError, ValueError),
        socket.create_connection(where, _SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=parts.hostname),
    ):
        return True
    return False
