"""Renewals of leases, sent together: an agent of a hundred jobs sends one request where it would send a hundred."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from epochal.client.http import Http, Request
from epochal.errors import AuthError, EpochalError, UnreachableError, from_document
from epochal.ledger.states import JobState
from epochal.ledger.values import Lease

_GATHER_SECONDS = 0.03
_MOST = 100
"""In one request, whose body may have 2 MiB."""


_Asked = tuple[dict[str, Any], Future[JobState]]


class Renewals:
    """Joins what several threads ask at about the same time."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._lock = threading.Lock()
        self._waiting: dict[float, list[_Asked]] = {}

    def renew(self, lease: Lease, ttl: float, progress: Mapping[str, Any] | None) -> JobState:
        """The job's state. Raises what the server tells of this lease, and what keeps it from telling anything."""
        body = {"job_id": lease.job_id, "epoch": lease.epoch, "secret": lease.secret, "progress": progress}
        asked: _Asked = (body, Future())
        with self._lock:
            together = self._waiting.setdefault(ttl, [])
            together.append(asked)
        if together[0] is asked:  # the first one sends for all
            time.sleep(_GATHER_SECONDS)
            with self._lock:
                del self._waiting[ttl]
            for begin in range(0, len(together), _MOST):
                self._send(ttl, together[begin : begin + _MOST])
        return asked[1].result()

    def _send(self, ttl: float, together: Sequence[_Asked]) -> None:
        body = {"ttl": ttl, "leases": [lease for lease, _ in together]}
        try:
            told = self._http.json(Request("POST", "/leases/renew", body=body, repeatable=True))["leases"]
        except Exception as error:
            is_of_one = isinstance(error, EpochalError) and not isinstance(error, UnreachableError | AuthError)
            if is_of_one and len(together) > 1:  # its progress is refused: the others keep their leases
                for one in together:
                    self._send(ttl, [one])
                return
            for _, answer in together:
                answer.set_exception(error)
            return
        for (_, answer), one in zip(together, told, strict=True):
            if "error" in one:
                answer.set_exception(from_document(one["error"]))
            else:
                answer.set_result(JobState(one["state"]))
