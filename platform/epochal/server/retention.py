"""Makes the logs of attempts that are over compact, and deletes what the server and its ledger keep of jobs that ended
long ago."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from epochal.ledger.ledger import Ledger
from epochal.server.code_store import CodeStore
from epochal.server.log_store import LogStore
from epochal.settings import Retention

_COMPACTED_FOR = 3 * 3600.0
"""Seconds from an attempt's end on. Hourly: the first time merges its logs, the next deletes what was merged."""


@dataclass(frozen=True)
class Pruner:
    """Several servers on one storage may each have one: what is gone already is no error."""

    ledger: Ledger
    logs: LogStore
    code: CodeStore
    retention: Retention

    def prune(self) -> Iterator[str]:
        """Delete what is older than its kind is kept; what that was. Then merge the logs of what has ended lately.

        Raises:
            UnreachableError: the ledger or the storage does not answer.
        """
        now = self.ledger.now()
        if self.retention.logs is not None:
            for job_id in sorted(self.logs.jobs() & self.ledger.ended(before=now - self.retention.logs)):
                self.logs.delete(job_id)
                yield f"logs of {job_id}"
        if self.retention.code is not None:
            before = now - self.retention.code
            for digest in sorted(self.code.digests() & self.ledger.unneeded_code(before)):
                # Once more: many take an object store minutes, and a job may have been submitted with this one since.
                if digest in self.ledger.unneeded_code(before):
                    self.code.delete(digest)
                    yield f"code {digest[:12]}"
        yield from self.ledger.prune(self.retention.events, self.retention.jobs_at_least)
        for job_id, epoch in self.ledger.attempts_ended(after=now - _COMPACTED_FOR):
            self.logs.compact(job_id, epoch)
