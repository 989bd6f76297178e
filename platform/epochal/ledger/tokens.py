"""Tokens: who may call the server, and what for."""

from __future__ import annotations

import hashlib
import secrets

from sqlalchemy import bindparam, func, insert, or_, select, update

from epochal.errors import NotFoundError, UsageError
from epochal.ledger.database import Database
from epochal.ledger.tables import now, tokens
from epochal.ledger.transitions import from_row
from epochal.ledger.values import Role, Token

_PREFIX = "ep_"
_SECRET_BYTES = 32
_COLUMNS = tuple(column for column in tokens.c if column.name != "digest")


class TokenOperations:
    """Creating, looking up and revoking tokens."""

    _database: Database

    def create_token(
        self, user: str, role: Role | str, name: str = "", ttl_seconds: float | None = None
    ) -> tuple[Token, str]:
        """A new token, and its secret: 256 random bits, of which only the SHA-256 is kept.

        Raises:
            UsageError: no such role, an empty user, or a time to live of nothing.
        """
        if not user or (ttl_seconds is not None and ttl_seconds <= 0):
            raise UsageError("a token wants a user, and a time to live above zero or none")
        secret = _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        values = {
            "id": secrets.token_hex(4),
            "digest": digest_of(secret),
            "user": user,
            "role": _role(role),
            "name": name,
            "created_at": now(),
            "expires_at": None if ttl_seconds is None else now() + ttl_seconds,
        }
        with self._database.write() as connection:
            row = connection.execute(insert(tokens).values(values).returning(*_COLUMNS)).one()
            return from_row(Token, row), secret

    def token(self, secret: str) -> Token | None:
        """The token with this secret; None if there is none, or it was revoked or has expired."""
        with self._database.read() as connection:
            row = connection.execute(_VALID, {"shown": digest_of(secret)}).first()
            return from_row(Token, row) if row else None

    def tokens(self) -> list[Token]:
        """All of them, revoked and expired ones too, newest first."""
        with self._database.read() as connection:
            found = connection.execute(select(*_COLUMNS).order_by(tokens.c.created_at.desc(), tokens.c.id))
            return [from_row(Token, row) for row in found]

    def revoke_token(self, token_id: str) -> Token:
        """Make a token worthless from now on; one that is already stays as it is.

        Raises:
            NotFoundError: no token has this id.
        """
        revoked = {"revoked_at": func.coalesce(tokens.c.revoked_at, now())}
        with self._database.write() as connection:
            this = update(tokens).where(tokens.c.id == token_id).values(revoked)
            row = connection.execute(this.returning(*_COLUMNS)).first()
            if row is None:
                raise NotFoundError("token", token_id, tuple(connection.scalars(select(tokens.c.id))))
            return from_row(Token, row)


_GOES_ON = or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now())
_VALID = select(*_COLUMNS).where(tokens.c.digest == bindparam("shown"), tokens.c.revoked_at.is_(None), _GOES_ON)


def digest_of(secret: str) -> str:
    """Fast on purpose: 256 random bits cannot be guessed, however cheap a guess is."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _role(role: Role | str) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise UsageError(f"no role is named {role!r}", f"known: {', '.join(Role)}") from None
