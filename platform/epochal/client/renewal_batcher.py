"""Renewals of leases, sent together: an agent of a hundred jobs sends one request where it would send a hundred."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from epochal.client.http import Http, Request
from epochal.errors import AuthError, EpochalError, UnreachableError, from_document
from epochal.ledger.values import Held, Renewed
from epochal.redaction import named

_GATHER_SECONDS = 0.03
_MOST = 100
"""In one request, whose body may have 2 MiB."""

_Asked = tuple[dict[str, Any], Future[Renewed]]


class RenewalBatcher:
    """Joins what several threads ask at about the same time."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._lock = threading.Lock()
        self._waiting: dict[float, list[_Asked]] = {}

    def renew(self, lease: Held, ttl: float, progress: Mapping[str, Any] | None) -> Renewed:
        """How the job stands. Raises what the server tells of this lease, and what keeps it from telling anything."""
        body = {"job_id": lease.job_id, "epoch": lease.epoch, "secret": lease.secret, "progress": progress}
        asked: _Asked = (body, Future())
        with self._lock:
            together = self._waiting.setdefault(ttl, [])
            together.append(asked)
        if together[0] is asked:  # the first one sends for all
            time.sleep(_GATHER_SECONDS)
            with self._lock:
                del self._waiting[ttl]  # from here on nobody adds to `together`
            for begin in range(0, len(together), _MOST):
                self._send(ttl, together[begin : begin + _MOST])
        return asked[1].result()  # in time: the request of the one who sends has a timeout

    def _send(self, ttl: float, together: Sequence[_Asked]) -> None:
        body = {"ttl": ttl, "leases": [lease for lease, _ in together]}
        answers = [answer for _, answer in together]
        pairs: list[tuple[Future[Renewed], Renewed | EpochalError]]
        try:
            told = self._http.json(Request("POST", "/leases/renew", body=body, repeatable=True))["leases"]
            found = [from_document(one["error"]) if "error" in one else Renewed.from_dict(one) for one in told]
            pairs = list(zip(answers, found, strict=True))
        except EpochalError as error:
            if len(together) > 1 and not isinstance(error, UnreachableError | AuthError):
                for one in together:  # the progress of one is refused: the others keep their leases
                    self._send(ttl, [one])
                return
            pairs = [(answer, error) for answer in answers]
        except Exception as error:  # nobody is left waiting for ever
            told = f"{self._http.server} answers renewals oddly: {named(error)}"
            odd = UnreachableError(told, "is it of this version?")
            pairs = [(answer, odd) for answer in answers]
        for answer, renewed in pairs:
            if isinstance(renewed, EpochalError):
                answer.set_exception(renewed)
            else:
                answer.set_result(renewed)
