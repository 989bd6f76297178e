"""The client's verbs for administrators: tokens and quotas."""

from __future__ import annotations

from epochal.client.http import Http, Request
from epochal.errors import UsageError
from epochal.ledger.values import Quota, QuotaKind, Token
from epochal.names import checked_name, in_path


class AdministrationCalls:
    """See ``Client``. All but ``quotas`` need the role admin."""

    _http: Http

    def tokens(self) -> list[Token]:
        """Every token, without its secret."""
        return [Token.from_dict(token) for token in self._http.get("/tokens")["tokens"]]

    def create_token(
        self, user: str, role: str = "user", *, name: str = "", ttl_seconds: float | None = None
    ) -> tuple[Token, str]:
        """A new token, and its secret, which is shown this once.

        Args:
            role: ``viewer`` looks, ``user`` changes its own jobs, ``admin`` everything, ``agent`` runs jobs as
                the agent that ``user`` names.
            name: what it is for.
            ttl_seconds: how long it is good for; default: until it is revoked.
        """
        owner = checked_name("agent" if role == "agent" else "user", user)
        body = {"user": owner, "role": role, "name": name, "ttl_seconds": ttl_seconds}
        answer = self._http.post("/tokens", body)
        return Token.from_dict(answer["token"]), answer["secret"]

    def revoke_token(self, identity: str | int) -> None:
        """Make a token worthless, at once."""
        self._http.send(Request("DELETE", f"/tokens/{in_path('token', str(identity))}"))

    def quotas(self) -> list[Quota]:
        """The limits of users and queues."""
        return [Quota.from_dict(quota) for quota in self._http.get("/quotas")["quotas"]]

    def set_quota(
        self, kind: str, name: str, *, jobs: int | None = None, cpus: float | None = None, gpus: float | None = None
    ) -> Quota:
        """The most that the running jobs of a user or a queue may take together.

        Args:
            kind: ``user`` or ``queue``.
            name: whose; ``*`` for each one that has no quota of its own.
            jobs, cpus, gpus: None is no limit.
        """
        body = {"jobs": jobs, "cpus": cpus, "gpus": gpus}
        return Quota.from_dict(self._http.json(Request("PUT", _quota(kind, name), body=body)))

    def delete_quota(self, kind: str, name: str) -> None:
        """Lift the limits of a user or a queue."""
        self._http.send(Request("DELETE", _quota(kind, name)))


def _quota(kind: str, name: str) -> str:
    if kind not in tuple(QuotaKind):
        raise UsageError(f"a quota is of a user or of a queue, not of {kind!r}")
    return f"/quotas/{kind}/{in_path('quota', name)}"
