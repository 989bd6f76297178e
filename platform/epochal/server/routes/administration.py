"""Who is asking, tokens, quotas."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from epochal import __version__, names
from epochal.ledger.values import Quota, QuotaKind, Token
from epochal.server.auth import Admin, Reader
from epochal.server.error_responses import answer
from epochal.server.notifier import QUEUE
from epochal.server.openapi import answers
from epochal.server.requests import CheckedRoute
from epochal.server.schemas import NEW_TOKEN, QUOTAS, TOKENS, WHOAMI, Limits, NewToken
from epochal.server.services import Deps

router = APIRouter(route_class=CheckedRoute, tags=["administration"])

TokenId = Annotated[str, Path(min_length=1, max_length=100)]
QuotaName = Annotated[str, Path(pattern=names.QUOTA, description="A user or a queue; * is everyone without a quota.")]


@router.get("/whoami", responses=answers(WHOAMI))
def whoami(who: Reader) -> Response:
    """The user and role of the token."""
    return answer({"user": who.user, "role": who.role, "token_id": who.token_id, "version": __version__})


@router.post("/tokens", status_code=201, responses=answers(NEW_TOKEN, 413, status=201))
def create_token(body: NewToken, _who: Admin, services: Deps) -> Response:
    """Make a token. Its secret is in this answer, and nowhere else afterwards."""
    token, secret = services.ledger.create_token(body.user, body.role, body.name, body.ttl_seconds)
    return answer({"token": token.to_dict(), "secret": secret}, 201)


@router.get("/tokens", responses=answers(TOKENS))
def tokens(_who: Admin, services: Deps) -> Response:
    """Every token, without its secret."""
    return answer({"tokens": [token.to_dict() for token in services.ledger.tokens()]})


@router.delete("/tokens/{token_id}", responses=answers(Token, 404))
def revoke_token(token_id: TokenId, _who: Admin, services: Deps) -> Response:
    """Revoke a token. Other servers of this ledger notice within seconds."""
    token = services.ledger.revoke_token(token_id)
    services.gate.forget()
    return answer(token.to_dict())


@router.get("/quotas", responses=answers(QUOTAS))
def quotas(_who: Reader, services: Deps) -> Response:
    """Every quota of a user or a queue."""
    return answer({"quotas": [quota.to_dict() for quota in services.ledger.quotas()]})


@router.put("/quotas/{kind}/{name}", responses=answers(Quota, 413))
def set_quota(kind: QuotaKind, name: QuotaName, body: Limits, _who: Admin, services: Deps) -> Response:
    """Limit what the running jobs of a user, or of a queue, may take together."""
    quota = services.ledger.set_quota(kind, name, jobs=body.jobs, cpus=body.cpus, gpus=body.gpus)
    services.notifier.notify(QUEUE)
    return answer(quota.to_dict())


@router.delete("/quotas/{kind}/{name}", status_code=204, responses=answers(None, 404, status=204))
def delete_quota(kind: QuotaKind, name: QuotaName, _who: Admin, services: Deps) -> Response:
    """Take a quota away."""
    services.ledger.delete_quota(kind, name)
    services.notifier.notify(QUEUE)
    return Response(status_code=204)
