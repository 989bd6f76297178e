"""Quotas: the most that the running jobs of a user or of a queue may take together."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from epochal.errors import NotFoundError, UsageError
from epochal.ledger.database import Database, one_at_a_time
from epochal.ledger.tables import quotas
from epochal.ledger.transitions import from_row
from epochal.ledger.values import Quota, QuotaKind


class QuotaOperations:
    """Setting and reading quotas."""

    _database: Database

    def set_quota(
        self,
        kind: QuotaKind | str,
        name: str,
        *,
        jobs: int | None = None,
        cpus: float | None = None,
        gpus: float | None = None,
    ) -> Quota:
        """The limits of a user or queue from now on, in place of any before; None is no limit.

        ``name`` ``*`` is for everyone who has none of their own. Jobs that run already are left alone.

        Raises:
            UsageError: another kind than user or queue, no name, or a limit below zero.
        """
        # NaN compares with nothing, and would limit nothing.
        if not name or any(limit is not None and not limit >= 0 for limit in (jobs, cpus, gpus)):
            raise UsageError("a quota wants a name, and limits of zero or more")
        quota = Quota(_kind(kind), name, jobs, cpus, gpus)
        with self._database.write() as connection:
            one_at_a_time(connection)
            connection.execute(delete(quotas).where(_this(quota.kind, name)))
            connection.execute(insert(quotas).values(quota.to_dict()))
        return quota

    def quotas(self) -> list[Quota]:
        """All of them, by kind and name."""
        with self._database.read() as connection:
            return all_quotas(connection)

    def delete_quota(self, kind: QuotaKind | str, name: str) -> None:
        """Take the limits of a user or queue away.

        Raises:
            NotFoundError: there are none.
        """
        with self._database.write() as connection:
            if connection.execute(delete(quotas).where(_this(_kind(kind), name))).rowcount == 0:
                known = tuple(connection.scalars(select(quotas.c.name).where(quotas.c.kind == kind)))
                raise NotFoundError(f"quota of a {kind}", name, known)


def all_quotas(connection: Connection) -> list[Quota]:
    return [from_row(Quota, row) for row in connection.execute(_ALL)]


_ALL = select(quotas).order_by(quotas.c.kind, quotas.c.name)


def _this(kind: QuotaKind, name: str) -> ColumnElement[bool]:
    return (quotas.c.kind == kind) & (quotas.c.name == name)


def _kind(kind: QuotaKind | str) -> QuotaKind:
    try:
        return QuotaKind(kind)
    except ValueError:
        raise UsageError(f"there are no quotas of a {kind!r}", "known: user, queue") from None
