"""What every session of PostgreSQL is opened with, as its driver gets it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from epochal.ledger.database import Database

pytest.importorskip("psycopg")


class OpenedError(Exception):
    pass


def arguments(url: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def note(dialect: object, record: object, args: object, parameters: dict[str, Any]) -> None:
        found.update(parameters)
        raise OpenedError

    engine = Database(url).engine
    event.listen(engine, "do_connect", note)
    with pytest.raises(OpenedError):
        engine.connect()
    return found


def test_both_ends_notice_within_half_a_minute_that_the_others_host_has_died() -> None:
    found = arguments("postgresql://epochal@db.example.com/epochal")
    assert found["keepalives_idle"] + found["keepalives_interval"] * found["keepalives_count"] <= 30
    assert found["tcp_user_timeout"] <= 30_000
    theirs = dict(one.removeprefix("-c ").split("=") for one in found["options"].split(" -c "))
    idle, interval, count = (int(theirs[f"tcp_keepalives_{name}"]) for name in ("idle", "interval", "count"))
    assert idle + interval * count <= 30
    assert {"lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"} <= theirs.keys()


def test_what_the_address_says_comes_last() -> None:
    url = "postgresql://epochal@db.example.com/epochal?options=-c%20lock_timeout%3D1"
    assert arguments(url)["options"].endswith("-c lock_timeout=1")
