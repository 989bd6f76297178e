"""A real ledger that can be taken away from an agent."""

from __future__ import annotations

import threading
from typing import Any

from epochal.agent.in_process import LedgerSource
from epochal.errors import UnreachableError


class FlakySource:
    """``JobSource``. While ``away``, calls fail as if no server answered; ``lose``: calls done, and not told."""

    def __init__(self, source: LedgerSource) -> None:
        self._source = source
        self.away = threading.Event()
        self.lose: set[str] = set()
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._source, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if self.away.is_set():
                self.refused += 1
                raise UnreachableError("the server is away")
            answer = method(*arguments, **options)
            if name in self.lose:
                self.lose.discard(name)
                raise UnreachableError("the answer was lost")
            return answer

        return call
