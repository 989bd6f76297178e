"""For whoever watches the server: is it there, can it work, what does it count."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from epochal.errors import UnreachableError
from epochal.server.auth import ANYONE, Credentials, requires
from epochal.server.error_responses import answer
from epochal.server.openapi import Answers, error_responses
from epochal.server.schemas import READY, STATUS
from epochal.server.services import Deps
from epochal.urls import is_loopback

router = APIRouter(tags=["health"])

_TEXT: Answers = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
_OPEN: dict[str, Any] = {"security": [{}]}
"""Or without a token."""
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-real-ip")
_CHECK_SECONDS = 2.0
_with_token = requires(*ANYONE)


async def _local_or_known(request: Request, credentials: Credentials, services: Deps) -> None:
    """A server for others may stand behind a proxy on its own machine, and not every proxy says that it is one."""
    if not (services.settings.single_user and _is_local(request)):
        await _with_token(request, credentials)


@router.get("/healthz", responses={200: {"model": STATUS}})
async def healthz() -> Response:
    """The process answers."""
    return answer({"status": "ok"})


@router.get("/readyz", responses={200: {"model": READY}, **error_responses(500, 503)})
async def readyz(services: Deps) -> Response:
    """The database answers too. `storage` says what is wrong with the storage: leases are kept without it."""
    await services.lease_threads.run(services.ledger.ping)
    try:
        await services.storage_threads.run(services.storage.check, _CHECK_SECONDS)
    except UnreachableError as error:
        return answer({"status": "ok", "storage": str(error)})
    return answer({"status": "ok", "storage": "ok"})


@router.get(
    "/metrics", responses={**_TEXT, **error_responses(401, 403, 500, 503)}, response_class=Response, openapi_extra=_OPEN
)
def metrics(_allowed: Annotated[None, Depends(_local_or_known)], services: Deps) -> Response:
    """For Prometheus. A single user's server asks its own machine for no token."""
    return Response(services.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _is_local(request: Request) -> bool:
    """Of this machine, not passed on by a proxy on it, and not by a page in a browser on it whose name was made to lead
    here (DNS rebinding): that one's `Host` is its own."""
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    return is_loopback(request.client.host) and is_loopback(request.url.hostname or "")
