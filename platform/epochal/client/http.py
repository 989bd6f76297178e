"""HTTP to one server: bearer token, timeouts, its errors as ours, and another try where that is safe."""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NoReturn

import httpx

from epochal.backoff import pause_after
from epochal.client.checks import LOGIN, checked_token, checked_url, stays_here
from epochal.client.wrong_server import explained
from epochal.errors import (
    AuthError,
    ConflictError,
    EpochalError,
    ForbiddenError,
    NotFoundError,
    TooLargeError,
    UnreachableError,
    UsageError,
    from_document,
)
from epochal.ledger.documents import encode
from epochal.ledger.json_values import not_understood
from epochal.redaction import named, said, without_credentials

API = "/api/v1"
MAX_WAIT = 30.0
"""The longest that the server keeps a question open, in seconds; it refuses to keep one longer."""

_CONNECT_SECONDS = 5.0
_CLOSE_SECONDS = 1.0
_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

_IS_IT_UP = "is it running? `epochal up` starts one here; `epochal config show` tells where commands go"


@dataclass(frozen=True)
class Request:
    """One call.

    ``wait``: seconds that the server may keep it open. ``repeatable``: doing it twice is doing it once (by its method,
    where nothing is said). ``answers``: statuses that are an answer and no error, beside those of success.
    ``outage``: seconds to go on asking where no answer comes and that is safe; default: the connection's.
    """

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content: bytes | None = None
    wait: float = 0.0
    repeatable: bool | None = None
    answers: frozenset[int] = frozenset()
    outage: float | None = None

    @property
    def can_repeat(self) -> bool:
        return self.method in _REPEATABLE if self.repeatable is None else self.repeatable


@dataclass(frozen=True)
class Patience:
    """How long one answer may take, and for how long it is asked for again where none came, in seconds."""

    answer: float = 30.0
    outage: float = 1.0


class Http:
    """A connection pool to one server. Threads may share it."""

    def __init__(self, server: str, token: str | None = None, patience: Patience | None = None) -> None:
        self.server = checked_url(server)
        self._patience = patience or Patience()
        headers = {"Authorization": f"Bearer {checked_token(token)}"} if token else {}
        # A proxy that the environment names for the outside world cannot reach this machine's loopback.
        trusts = not stays_here(self.server)
        # httpx reads the certificates of every authority for each client, in 20 ms: of them http needs none.
        verify = True if self.server.lower().startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            self._http = httpx.Client(base_url=f"{self.server}{API}", headers=headers, trust_env=trusts, verify=verify)
        except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
            hint = "look at HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
            raise UsageError(f"the proxy or certificates that are set cannot be used: {named(error)}", hint) from error
        self._clock: tuple[float, float] | None = None
        self._is_closed = False
        self._is_known = False
        """Whether an answer of Epochal's has come from there."""

    def get(self, path: str, query: Mapping[str, Any] | None = None, wait: float = 0.0) -> Any:
        """The JSON at ``path``; what is None in ``query`` is left out."""
        return self.json(Request("GET", path, query or {}, wait=wait))

    def post(self, path: str, body: Any = None, repeatable: bool = False) -> Any:
        return self.json(Request("POST", path, body=body or {}, repeatable=repeatable))

    def json(self, request: Request) -> Any:
        """The answer's JSON; None where the server says that there is none (204).

        Raises:
            UnreachableError: no answer, or one that no Epochal server gives.
            EpochalError: the error that the server tells.
        """
        response = self.send(request)
        return None if response.status_code == HTTPStatus.NO_CONTENT else self.decoded(response)

    def send(self, request: Request) -> httpx.Response:
        """The answer to ``request``. Raises as ``json`` does."""
        try:
            return self._sent(request)
        except EpochalError as error:
            if self._is_known:  # Epochal does answer there, so there is nothing to find out by more requests
                raise
            raise explained(error, self.server) from error.__cause__

    def _sent(self, request: Request) -> httpx.Response:
        until = time.monotonic() + (self._patience.outage if request.outage is None else request.outage)
        failures = 0
        while True:
            try:
                with self._mapped():
                    response = self._http.send(self._built(request, request.wait))
                return self._answered(response, request.answers)
            except UnreachableError as error:
                failures += 1
                # A request that got no answer may have been carried out, unless no connection was made for it.
                sent = not isinstance(error.__cause__, _NEVER_SENT)
                pause = pause_after(failures)
                if (sent and not request.can_repeat) or time.monotonic() + pause > until:
                    raise
            time.sleep(pause)

    def now(self) -> float:
        """The server's time in seconds since 1970, good to a second; this machine's before the first answer."""
        if self._clock is None:
            return time.time()
        told, at = self._clock
        return told + time.monotonic() - at

    def close(self) -> None:
        self._is_closed = True
        # A Ctrl-C that comes just as httpcore has taken its lock leaves it taken: whoever closes would wait for ever.
        closer = threading.Thread(target=self._http.close, daemon=True)
        closer.start()
        closer.join(_CLOSE_SECONDS)

    def documents(self, request: Request) -> Iterator[Any]:
        """The JSON of each line of an answer that goes on, as it comes; ``wait``: the longest pause between lines.

        Raises:
            UnreachableError: no answer, or it was broken off.
            EpochalError: the error that the server tells.
        """
        # `wait` is no parameter of a stream: the timeout of httpx counts for each read, and so between two lines.
        with self._mapped():
            response = self._http.send(self._built(replace(request, wait=0.0), request.wait), stream=True)
        with closing(response), self._mapped():
            if not response.is_success:
                response.read()  # the error is in the body, of which httpx has nothing yet
            self._answered(response, request.answers)
            for line in response.iter_lines():
                if line:
                    yield self._parsed(line)

    def _built(self, request: Request, pause: float) -> httpx.Request:
        if self._is_closed:  # httpx raises a bare RuntimeError
            raise UsageError("this client was closed", "make another: Client()")
        query = {name: value for name, value in request.query.items() if value is not None}
        if request.wait:
            query["wait"] = request.wait
        timeout = httpx.Timeout(self._patience.answer + pause, connect=_CONNECT_SECONDS)
        content, headers = request.content, dict(request.headers)
        if request.body is not None:
            content = encode(sendable(request.body)).encode()
            headers["Content-Type"] = "application/json"
        return self._http.build_request(
            request.method, request.path, params=query, content=content, headers=headers, timeout=timeout
        )

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise foreign(error, self.server) from error

    def _answered(self, response: httpx.Response, answers: frozenset[int]) -> httpx.Response:
        with suppress(KeyError, ValueError):  # some proxy's answer without a date
            self._clock = (parsedate_to_datetime(response.headers["Date"]).timestamp(), time.monotonic())
        if response.is_success or response.status_code in answers:
            return response
        raise self.refusal(response)

    def refusal(self, response: httpx.Response) -> EpochalError:
        """The error that the server tells."""
        try:
            error = from_document(response.json()["error"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return _by_status(response, self.server)
        # Of a page that it does not have, a server is asked by a URL with a path too many.
        self._is_known |= not (isinstance(error, NotFoundError) and error.kind == "page")
        needs_login = isinstance(error, AuthError) and not isinstance(error, ForbiddenError) and not error.hint
        return AuthError(error.message, LOGIN) if needs_login else error

    def decoded(self, response: httpx.Response) -> Any:
        return self._parsed(response.text)

    def _parsed(self, text: str) -> Any:
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            error = UnreachableError(f"what answers at {self.server} is not an Epochal server", _IS_IT_UP)
            raise explained(error, self.server) from None
        self._is_known = True
        return _Answer(document)


class _Answer(dict[str, Any]):
    """What the server says, in which nothing is missed without a word."""

    def __missing__(self, key: str) -> NoReturn:
        raise not_understood(f"{key!r} is missing in it")


def sendable(value: Any) -> Any:
    """JSON as every database takes it: no NUL and no half of a character, which a worker's last words may hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")
    if isinstance(value, Mapping):
        return {sendable(str(key)): sendable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [sendable(item) for item in value]
    return value


def foreign(error: Exception, server: str) -> EpochalError:
    """An error of httpx as one of ours."""
    told = said(error)
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return UsageError(f"{server!r} is not the URL of a server: {told}", "such as http://127.0.0.1:8700")
    if isinstance(error, httpx.TimeoutException):
        return UnreachableError(f"{server} did not answer in time ({type(error).__name__})", _IS_IT_UP)
    return UnreachableError(f"{server} does not answer: {told}", _IS_IT_UP)


def _by_status(response: httpx.Response, server: str) -> EpochalError:
    """What a status alone says: the answer of a proxy, or of no Epochal server."""
    asked = f"{response.request.method} {response.request.url.path}"
    said = f"{server} answered {response.status_code} {response.reason_phrase} to {asked}".replace("  ", " ")
    kinds: dict[int, EpochalError] = {
        HTTPStatus.UNAUTHORIZED: AuthError(said, LOGIN),
        HTTPStatus.FORBIDDEN: ForbiddenError(said),
        HTTPStatus.CONFLICT: ConflictError(said),
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: TooLargeError(said),
    }
    # Of ours, even a bug has a document, and so has what is not there.
    away = response.status_code >= 500 or response.status_code == HTTPStatus.NOT_FOUND or response.is_redirect
    other = UnreachableError(said, _IS_IT_UP) if away else EpochalError(said)
    if response.is_redirect:
        there = without_credentials(re.split(r"[?#]", response.headers.get("Location", "nowhere"))[0])
        hint = f"where that is the server's own address, name it as --server: {there.partition(API)[0]}"
        other = UnreachableError(f"{said}, and sends on to {there}", hint)
    return kinds.get(response.status_code, other)
