"""Records that cannot be used and are left out: ``data.on_error: skip``."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from epochal.errors import TrainingError

MOST_NAMED = 20
"""So many a worker names as notes of the job; its log names all."""

_log = logging.getLogger(__name__)


class LeftOut:
    """What one worker has left out, by what was said of it: each record counts once. Where it does not ``skip``,
    nothing is."""

    def __init__(self, skip: bool = False, most: int = 0) -> None:
        self.skip = skip
        self.most = most
        self._known: dict[str, None] = {}
        self._told = 0

    @property
    def count(self) -> int:
        return len(self._known)

    def add(self, problems: Iterable[str]) -> None:
        """Each of the ``problems`` names its record.

        Raises:
            TrainingError: they are too many.
        """
        for problem in problems:
            if problem not in self._known:
                _log.warning("left out: %s", problem)
                self._known[problem] = None
                self.refuse_beyond(self.count)

    def refuse_beyond(self, count: int) -> None:
        """``count`` records are left out: by this worker, or by all.

        Raises:
            TrainingError: that is more than ``data.max_errors``.
        """
        if count > self.most:
            last = next(reversed(self._known), "the logs of other workers name them")
            told = f"{count} records of the data cannot be used, and data.max_errors is {self.most}; the last: {last}"
            raise TrainingError(told, "mend or remove them, or allow more")

    def untold(self) -> list[str]:
        """What a person should know since it was asked last."""
        known, first = list(self._known), self._told
        self._told = len(known)
        told = [f"left out: {one}" for one in known[first:MOST_NAMED]]
        if first <= MOST_NAMED < len(known):
            told.append(f"more than {MOST_NAMED} records are left out by one worker, whose log names each")
        return told

    def restore(self, problems: Iterable[str]) -> None:
        """What was left out before the training went on."""
        self._known.update(dict.fromkeys(problems))
        self._told = len(self._known)

    def state(self) -> list[str]:
        return list(self._known)
