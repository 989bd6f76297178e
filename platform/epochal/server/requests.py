"""How requests are read: JSON that every database can store."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from inspect import iscoroutinefunction
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from epochal.errors import UsageError
from epochal.server.auth import principal_of
from epochal.server.services import Services

_MAX_DEPTH = 64
_MAX_PARTS = 100_000
"""A few times what 10,000 nodes of an agent take; 2 MiB of brackets would keep everyone waiting for half a second."""


class CheckedRequest(Request):
    """Its JSON has no NaN or infinity, no NUL, no half of a surrogate pair, and is not nested without end."""

    async def json(self) -> Any:
        body = await self.body()
        parts = body.count(b"[") + body.count(b"{")
        if parts > _MAX_PARTS:
            raise UsageError(f"the request's JSON has more than {_MAX_PARTS:,} lists and objects")
        document = json.loads(body.decode(), parse_constant=_refused, parse_float=_finite)
        # UTF-8 has no halves of pairs, and JSON no NUL, but for those that are escaped; and only brackets nest.
        return _checked(document) if b"\\u" in body or parts > _MAX_DEPTH else document


class CheckedRoute(APIRoute):
    """A route whose requests are read as ``CheckedRequest``, and only from whoever has a token."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_checked(request: Request) -> Response:
            await principal_of(request)  # first: the body may be large, and slow to parse
            return await handle(CheckedRequest(request.scope, request.receive))

        return handle_checked


class LeaseRoute(CheckedRoute):
    """A route by which agents keep their leases: its threads serve nothing else, and it is noticed when they cannot."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint if iscoroutinefunction(endpoint) else _of_lease(endpoint), **options)


def _of_lease(endpoint: Callable[..., Response]) -> Callable[..., Coroutine[Any, Any, Response]]:
    @wraps(endpoint)
    async def answer(services: Services, **asked: Any) -> Response:
        with services.reconciler.renewals.serving():
            return await services.lease_threads.run(partial(endpoint, services=services, **asked))

    return answer


def _checked(document: Any) -> Any:
    left: list[tuple[Any, int]] = [(document, 0)]
    while left:
        value, depth = left.pop()
        if isinstance(value, str):
            if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
                raise UsageError("the request has text that is not valid Unicode")
            if "\x00" in value:
                raise UsageError("the request has text with a NUL in it")
        elif isinstance(value, dict):
            left += ((part, depth + 1) for pair in value.items() for part in pair)
        elif isinstance(value, list):
            left += ((part, depth + 1) for part in value)
        if depth > _MAX_DEPTH:
            raise UsageError(f"the request's JSON is nested more than {_MAX_DEPTH} deep")
    return document


def _refused(name: str) -> Any:
    raise UsageError(f"the request has a number that JSON has no word for: {name}")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise UsageError("the request has a number that is too large")
    return value
