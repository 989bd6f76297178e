"""What a server tells bit by bit, over many answers: a job's events, and what its workers print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epochal.ledger.json_values import not_understood
from epochal.ledger.values import Event
from epochal.redaction import named


@dataclass(frozen=True)
class LogChunk:
    """Some of what one rank of one attempt printed. ``offset``: where it starts in that rank's log, in bytes."""

    attempt: int
    rank: int
    offset: int
    text: str

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> LogChunk:
        try:
            return cls(int(stored["attempt"]), int(stored["rank"]), int(stored["offset"]), str(stored["text"]))
        except (KeyError, TypeError, ValueError) as error:
            raise not_understood(f"it is not a piece of a log ({named(error)})") from error


@dataclass(frozen=True)
class LogFilter:
    """Which logs: of one rank, of one attempt (both: all), and only the last ``tail`` lines of each, of the newest."""

    rank: int | None = None
    attempt: int | None = None
    tail: int | None = None

    def query(self, cursor: str) -> dict[str, Any]:
        """The parameters of one question; the tail counts for the first alone."""
        return {
            "cursor": cursor or None,
            "rank": self.rank,
            "attempt": self.attempt,
            "tail": None if cursor else self.tail,
        }


@dataclass(frozen=True)
class LogPage:
    """Chunks, the cursor to go on from, and whether there will be no more."""

    chunks: tuple[LogChunk, ...]
    cursor: str
    done: bool

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> LogPage:
        chunks = tuple(LogChunk.from_dict(chunk) for chunk in stored["chunks"])
        return cls(chunks, str(stored["cursor"]), bool(stored["done"]))


@dataclass(frozen=True)
class EventPage:
    """Events, and whether there will be no more."""

    events: tuple[Event, ...]
    done: bool

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> EventPage:
        return cls(tuple(Event.from_dict(event) for event in stored["events"]), bool(stored["done"]))

    def last(self, before: int) -> int:
        """The id to ask on from."""
        return self.events[-1].id if self.events else before
