"""The system of record: what was asked for, what is being done, and what became of it."""

from __future__ import annotations

from typing import Self

from epochal.ledger.agents import AgentRegister
from epochal.ledger.database import Database
from epochal.ledger.lease_operations import LeaseOperations
from epochal.ledger.maintenance import Maintenance
from epochal.ledger.monitoring import Monitoring
from epochal.ledger.queueing import QueueOperations
from epochal.ledger.quotas import QuotaOperations
from epochal.ledger.reading import Reader
from epochal.ledger.renewals import RenewalOperations
from epochal.ledger.retention import Pruning
from epochal.ledger.schema import prepare
from epochal.ledger.sweep_operations import SweepOperations
from epochal.ledger.tokens import TokenOperations
from epochal.ledger.user_operations import UserOperations


class Ledger(
    UserOperations,
    QueueOperations,
    LeaseOperations,
    RenewalOperations,
    SweepOperations,
    AgentRegister,
    TokenOperations,
    QuotaOperations,
    Reader,
    Pruning,
    Monitoring,
    Maintenance,
):
    """A database of jobs, their attempts and events. Threads and processes may share one.

    >>> from epochal.ledger.states import JobState, Reason
    >>> with Ledger.open("sqlite://") as ledger:
    ...     job = ledger.submit({"version": 1}, name="digits-cnn")
    ...     lease = ledger.lease("agent-1", ttl=15)
    ...     _ = ledger.running(lease, world_size=2)
    ...     str(ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED).state)
    'SUCCEEDED'
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, url: str, upgrade: bool = True) -> Self:
        """Open ``sqlite:///PATH`` or ``postgresql://...``, creating or upgrading its tables.

        Raises:
            UnreachableError: the database does not answer, or cannot be written.
            UsageError: not such a URL.
            ConflictError: a newer version wrote it.
            OlderLedgerError: an older one did, and ``upgrade`` is False.
        """
        database = Database(url)
        try:
            prepare(database, upgrade)
        except BaseException:
            database.close()
            raise
        return cls(database)

    @property
    def label(self) -> str:
        """The URL without its password."""
        return self._database.label

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
