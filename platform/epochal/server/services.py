"""What every request works with, put together once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Self

from fastapi import Depends, Request

from epochal.ledger.ledger import Ledger
from epochal.server.auth import Gate, LocalToken, Principal
from epochal.server.code_store import CodeStore
from epochal.server.log_store import LogStore
from epochal.server.metrics import Metrics
from epochal.server.notifier import Notifier
from epochal.server.reconciler import Reconciler
from epochal.server.retention import Pruner
from epochal.server.settings import ServerSettings, file_secret
from epochal.server.storage import Storage
from epochal.server.threads import Threads


@dataclass(frozen=True)
class Services:
    """One of each, shared by all requests."""

    settings: ServerSettings
    ledger: Ledger
    storage: Storage
    code: CodeStore
    logs: LogStore
    gate: Gate
    reconciler: Reconciler
    lease_threads: Threads = field(default_factory=lambda: Threads("the ledger", 4, 5.0, waits=True))
    decision_threads: Threads = field(default_factory=lambda: Threads("the ledger", 2, 30.0, waits=True))
    """For what is slower, and must not make renewals wait: who is next in the queue."""
    storage_threads: Threads = field(default_factory=lambda: Threads("the storage", 16, 5.0))
    notifier: Notifier = field(default_factory=Notifier)
    metrics: Metrics = field(default_factory=Metrics)

    @classmethod
    def open(cls, settings: ServerSettings) -> Self:
        """
        Raises:
            UsageError: a setting cannot be used.
            UnreachableError: the database or the storage does not answer.
            OlderLedgerError: the ledger is of an older version, and ``settings.upgrade`` is False.
        """
        local = [LocalToken(one.secret(), Principal(one.user, one.role)) for one in settings.more_tokens]
        if settings.token_file:
            secret = file_secret(settings.token_file, settings.single_user)
            local.insert(0, LocalToken.of(secret, settings.single_user))
        storage = Storage(settings.storage_url)
        ledger = Ledger.open(settings.ledger_url, settings.upgrade)
        code, logs = CodeStore(storage), LogStore(storage)
        reconciler = Reconciler(ledger, settings.mlflow_uri, prune=Pruner(ledger, logs, code, settings.retention).prune)
        return cls(settings, ledger, storage, code, logs, Gate(ledger, local), reconciler)


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Deps = Annotated[Services, Depends(_services)]
