"""The description of the interface: every status of every request, and nothing that does not happen."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from epochal import __version__
from epochal.server.schemas import ErrorBody

Answers = dict[int | str, dict[str, Any]]

_ERRORS = {
    400: "The request is not understood.",
    401: "No token, or one that is not known, was revoked or has expired.",
    403: "The token's role does not allow this, or the job is somebody else's.",
    404: "There is no such thing.",
    409: "It is in a state that forbids this, or the name fits several jobs.",
    413: "The body is too large.",
    422: "The job spec has problems, all of which are told.",
    500: "The server failed.",
    503: "The database or the storage does not answer, now.",
}
_ALWAYS = (400, 401, 403, 500, 503)


def answers(model: Any, *also: int, status: int = 200) -> Answers:
    """What a request may be answered with: success, what may always go wrong, and ``also``."""
    success: dict[str, Any] = {"model": model} if model else {}
    return {status: success} | error_responses(*_ALWAYS, *also)


def error_responses(*statuses: int, model: Any = ErrorBody) -> Answers:
    return {status: {"model": model, "description": _ERRORS[status]} for status in sorted(statuses)}


def description(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document."""
    document: dict[str, Any] = get_openapi(
        title="Epochal",
        version=__version__,
        summary="Distributed training jobs: submit, follow, change; and what agents need to run them.",
        routes=app.routes,
    )
    for operations in document["paths"].values():
        for operation in operations.values():
            # FastAPI promises 422 for what is answered with 400 here.
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document
