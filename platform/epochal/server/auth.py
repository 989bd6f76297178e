"""Who asks: bearer tokens, what each role may do, and whose job it is."""

from __future__ import annotations

import getpass
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from epochal.errors import AuthError, ForbiddenError
from epochal.ledger.ledger import Ledger
from epochal.ledger.values import Job, Role
from epochal.server.threads import Threads

_KEPT_SECONDS = 5.0
"""How long a token that another server revoked may still be taken here."""
_KEPT_TOKENS = 10_000
_LOGIN = "`epochal login` stores a token; an administrator makes one with `epochal token create USER`"


@dataclass(frozen=True)
class Principal:
    """Whoever a request comes from."""

    user: str
    role: Role
    token_id: str = ""


@dataclass(frozen=True)
class LocalToken:
    """A token that is in a file rather than in the ledger: the administrator's first one among them."""

    secret: str
    principal: Principal

    @classmethod
    def of(cls, secret: str, single_user: bool) -> LocalToken:
        return cls(secret, Principal(_whoever_runs_this() if single_user else "admin", Role.ADMIN))

    def fits(self, secret: str) -> bool:
        return hmac.compare_digest(self.secret.encode(), secret.encode())


class Gate:
    """Finds out who holds a token. The ledger's answers are kept for some seconds, by the token's digest."""

    def __init__(self, ledger: Ledger, local: Sequence[LocalToken] = ()) -> None:
        self._ledger = ledger
        self._local = local
        self._threads = Threads("the ledger", 2, 5.0)
        self._known: dict[bytes, tuple[float, Principal]] = {}
        self._unknown: dict[bytes, float] = {}

    async def principal(self, secret: str) -> Principal:
        """
        Raises:
            AuthError: the token is not known, was revoked or has expired.
        """
        for token in self._local:
            if token.fits(secret):
                return token.principal
        key, now = hashlib.sha256(secret.encode()).digest(), time.monotonic()
        until, found = self._known.get(key, (0.0, None))
        if found is None or until < now:
            # Secrets are random, so one that is not known is not made later, and nobody waits for it to be forgotten.
            known = None
            if self._unknown.get(key, 0.0) < now:
                known = await self._threads.run(partial(self._ledger.token, secret))
            if known is None:
                _keep(self._unknown, key, now + _KEPT_SECONDS)
                raise AuthError("this token is not known, was revoked or has expired", _LOGIN)
            found = Principal(known.user, known.role, str(known.id))
            _keep(self._known, key, (now + _KEPT_SECONDS, found))
        return found

    def close(self) -> None:
        self._threads.close()

    def forget(self) -> None:
        """Ask the ledger again: a token was revoked."""
        self._known = {}


def _keep(kept: dict[bytes, Any], key: bytes, value: Any) -> None:
    if len(kept) >= _KEPT_TOKENS:  # somebody tries tokens; to ask the ledger once more costs little
        kept.clear()
    kept[key] = value


_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="`Authorization: Bearer TOKEN`")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def principal_of(request: Request) -> Principal:
    """Whoever sends this.

    Raises:
        AuthError: it has no token, or one that is not known, was revoked or has expired.
    """
    known: Principal | None = getattr(request.state, "principal", None)  # a request is asked for it twice
    if known is None:
        credentials = await _bearer(request)
        if credentials is None:
            raise AuthError("this needs a token: Authorization: Bearer TOKEN", _LOGIN)
        gate: Gate = request.app.state.services.gate
        known = request.state.principal = await gate.principal(credentials.credentials)
    return known


def requires(*roles: Role) -> Callable[..., Awaitable[Principal]]:
    """A dependency that lets only these roles through."""

    async def allowed(request: Request, _described: Credentials) -> Principal:
        principal = await principal_of(request)
        if principal.role not in roles:
            wanted = " or ".join(roles)
            raise ForbiddenError(f"this needs the role {wanted}: {principal.user}'s token has {principal.role}")
        return principal

    return allowed


ANYONE = tuple(Role)
Reader = Annotated[Principal, Depends(requires(*ANYONE))]
Submitter = Annotated[Principal, Depends(requires(Role.USER, Role.ADMIN))]
CodeReader = Annotated[Principal, Depends(requires(Role.USER, Role.ADMIN, Role.AGENT))]
AgentRole = Annotated[Principal, Depends(requires(Role.AGENT, Role.ADMIN))]
Admin = Annotated[Principal, Depends(requires(Role.ADMIN))]


def require_own(job: Job, principal: Principal) -> Job:
    """
    Raises:
        ForbiddenError: the job is somebody else's. Administrators may change every job.
    """
    if principal.role is not Role.ADMIN and job.submitted_by != principal.user:
        raise ForbiddenError(
            f"{job.id} is {job.submitted_by or 'nobody'}'s: {principal.user} may not change it",
            "ask its owner, or an administrator",
        )
    return job


def require_agent(name: str, principal: Principal) -> None:
    """
    Raises:
        ForbiddenError: the token is made out to another agent. Administrators may play any.
    """
    if principal.role is not Role.ADMIN and principal.user != name:
        raise ForbiddenError(
            f"this token is made out to the agent {principal.user}, not to {name}",
            f"start it with --name {principal.user}, or with a token of `epochal token create {name} --role agent`",
        )


def _whoever_runs_this() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "user"
