"""PostgreSQL: whoever dies, or hangs, inside a transaction holds up the others for seconds only."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import pytest
from ledger_steps import submit
from sqlalchemy import text

from epochal.errors import UnreachableError
from epochal.ledger import database
from epochal.ledger.capacity import Node
from epochal.ledger.database import Database, mapped_errors, one_at_a_time
from epochal.ledger.ledger import Ledger
from epochal.ledger.values import Lease
from postgres import Postgres

pytestmark = pytest.mark.slow

AGENT = ("a", "1", [Node("n", "n", {"CPU": 4.0}, {"CPU": 4.0})], [], {})


@pytest.fixture
def url(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a database whose sessions have a tenth of the usual patience."""
    quick = {name: value // 10 if name.endswith("timeout") else value for name, value in database.LIMITS.items()}
    monkeypatch.setattr(database, "LIMITS", quick)
    return postgres.new_url()


def test_one_that_dies_inside_a_lease_decision_holds_it_up_for_seconds(url: str) -> None:
    """A host that dies says nothing any more; its session waits inside the transaction, with the lock."""
    with Ledger.open(url) as ledger:
        ledger.heartbeat(*AGENT)
        job = submit(ledger)
        silent = Database(url)
        connection = silent.engine.connect()
        one_at_a_time(connection)
        begun = time.monotonic()
        lease = until_answered(ledger)
        assert lease is not None
        assert lease.job_id == job.id
        assert time.monotonic() - begun < 10
        with pytest.raises(UnreachableError, match="idle-in-transaction"), mapped_errors("it"):
            connection.execute(text("SELECT 1"))  # too late: it was rolled back
        connection.close()
        silent.close()


def until_answered(ledger: Ledger) -> Lease | None:
    """As an agent asks."""
    while True:
        with suppress(UnreachableError):
            return ledger.lease("a/1", 60)


def test_lock_that_is_held_for_long_is_an_error_to_try_again_after(url: str) -> None:
    with Ledger.open(url) as ledger:
        job = submit(ledger)
        other, done = Database(url), threading.Event()

        def hold() -> None:
            with other.write() as connection:
                connection.execute(text("SELECT 1 FROM jobs FOR UPDATE"))
                held.set()
                while not done.wait(0.1):
                    connection.execute(text("SELECT 1"))

        held = threading.Event()
        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(10)
        with pytest.raises(UnreachableError, match="lock timeout"):
            ledger.request_stop(job.id)
        done.set()
        holder.join()
        other.close()
        assert ledger.request_stop(job.id).state == "STOPPED"


def test_statement_that_takes_for_ever_is_ended(url: str) -> None:
    patient = Database(url)
    with pytest.raises(UnreachableError, match="statement timeout"), patient.read() as connection:
        connection.execute(text("SELECT pg_sleep(20)"))
    patient.close()


def test_the_url_s_own_options_count(url: str) -> None:
    own = Database(f"{url}%20-cstatement_timeout%3D1234")
    with own.read() as connection:
        assert connection.scalar(text("SHOW statement_timeout")) == "1234ms"
        assert connection.scalar(text("SHOW lock_timeout")) == "1s"
        assert connection.scalar(text("SELECT current_schema()")).startswith("s")
    own.close()
