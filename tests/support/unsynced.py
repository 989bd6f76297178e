"""A fixture for tests that cut no power: a ``conftest.py`` imports it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

__all__ = ["no_waiting_for_the_disk"]


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Of this process alone. A commit that waits takes four milliseconds, and is most of what many tests take."""
    from sqlalchemy import event
    from sqlalchemy.pool import Pool

    def unsynced(connection: Any, *_: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        event.listen(Pool, "checkout", unsynced)
        yield
        event.remove(Pool, "checkout", unsynced)
