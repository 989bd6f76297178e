"""Errors as answers: which status each has, and the one shape of their body."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from epochal.errors import (
    AuthError,
    CodeError,
    ConflictError,
    EpochalError,
    ForbiddenError,
    NotFoundError,
    SpecError,
    TooLargeError,
    UnreachableError,
    UsageError,
    as_document,
)

STATUSES: dict[type[EpochalError], int] = {
    UsageError: 400,
    CodeError: 400,
    AuthError: 401,
    ForbiddenError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    TooLargeError: 413,
    SpecError: 422,
    UnreachableError: 503,
}
"""Kind of error -> status; a kind below another has the other's, and what is not here is 500."""

_BY_STATUS: dict[int, type[EpochalError]] = {401: AuthError, 403: ForbiddenError, 413: TooLargeError}
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="epochal"'}
_SHOWN_PROBLEMS = 5
_SEE = "GET /api/v1/openapi.json describes every request"


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json_bytes(content), status, headers, media_type="application/json")


def json_bytes(content: Any) -> bytes:
    """In ASCII, on one line: text that is no valid Unicode travels too."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def status_of(error: EpochalError) -> int:
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)


def error_response(error: EpochalError, **beside: Any) -> Response:
    """The answer that tells ``error``; ``beside`` it in the body, what helps a program to go on."""
    status = status_of(error)
    headers = _CHALLENGE if status == 401 else {"Retry-After": "1"} if status == 503 else None
    return answer({"error": as_document(error), **beside}, status, headers)


def install(app: FastAPI) -> None:
    """Have every error of a handler, of FastAPI and of Starlette told in the same shape."""
    app.add_exception_handler(EpochalError, _ours)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(HTTPException, _theirs)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, EpochalError)
    return error_response(error)


async def _not_understood(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    # Without the values: a secret may be among them.
    shown = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems[:_SHOWN_PROBLEMS]]
    more = len(problems) - _SHOWN_PROBLEMS
    told = "; ".join(shown) + (f"; and {more:,} more problems" if more > 0 else "")
    return error_response(UsageError(f"the request is not understood: {told}", _SEE))


async def _theirs(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, EpochalError):  # FastAPI wraps what goes wrong while it reads a body
        return error_response(error.__cause__)
    if error.status_code == 404:
        ours: EpochalError = NotFoundError("page", request.url.path, hint=_SEE)
    else:
        ours = _BY_STATUS.get(error.status_code, UsageError)(str(error.detail))
    allowed = {"Allow": ", ".join(_allowed(request))} if error.status_code == 405 else {}
    headers = {**(error.headers or {}), **allowed, **(_CHALLENGE if error.status_code == 401 else {})}
    return answer({"error": as_document(ours)}, error.status_code, headers)


def _allowed(request: Request) -> list[str]:
    """Of every route of this path: a framework tells those of the first alone."""
    found = [
        method
        for method in ("GET", "POST", "PUT", "DELETE")
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    ]
    return list(dict.fromkeys(["HEAD", *found] if "GET" in found else found))
