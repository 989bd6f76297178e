"""`epochal db`, and the backup it makes."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest

from epochal.cli.main import main
from epochal.errors import UnreachableError, UsageError
from epochal.ledger import schema
from epochal.ledger.database import Database
from epochal.ledger.ledger import Ledger
from epochal.ledger.maintenance import back_up
from epochal.ledger.migrations import HEAD


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def db(url: str, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*words: str) -> tuple[int, str, str]:
        code = main(["db", *words, "--ledger", url])
        return code, *capfd.readouterr()

    return run


def test_upgrade_creates_upgrades_and_says_so(url: str, db: Callable[..., tuple[int, str, str]]) -> None:
    database = Database(url)
    with database.write() as connection:
        schema.migrate(connection, "0001")
    database.close()
    code, _, said = db("upgrade")
    assert (code, said.strip()) == (0, f"upgraded from version 0001 to {HEAD}")
    code, _, said = db("upgrade")
    assert (code, said.strip()) == (0, f"nothing to do: the ledger has version {HEAD}")


def test_backup_is_a_ledger(url: str, tmp_path: Path, db: Callable[..., tuple[int, str, str]]) -> None:
    with Ledger.open(url) as ledger:
        job = ledger.submit({"version": 1}, name="digits")
        copy = tmp_path / "copy.db"
        code, printed, _ = db("backup", str(copy))
        assert (code, printed.strip()) == (0, str(copy))
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with Ledger.open(f"sqlite:///{copy}") as restored:
        assert [one.id for one in restored.jobs()] == [job.id]
        assert restored.events(job.id)


def test_backup_of_a_ledger_in_use_is_of_one_moment(url: str, tmp_path: Path) -> None:
    stop = Event()
    with Ledger.open(url) as ledger:

        def submit() -> None:
            while not stop.is_set():
                ledger.submit({"version": 1}, name="digits")

        writer = Thread(target=submit)
        writer.start()
        try:
            for number in range(3):
                back_up(url, tmp_path / f"{number}.db")
        finally:
            stop.set()
            writer.join()
    for number in range(3):
        with Ledger.open(f"sqlite:///{tmp_path / f'{number}.db'}") as restored:
            assert all(restored.events(job.id) for job in restored.jobs())


def test_backup_of_an_older_ledger_leaves_it_as_it_is(url: str, tmp_path: Path) -> None:
    database = Database(url)
    with database.write() as connection:
        schema.migrate(connection, "0001")
    back_up(url, tmp_path / "copy.db")
    with database.read() as connection:
        assert schema.version(connection) == "0001"
    database.close()


def test_backup_refuses_what_would_lose_something(
    url: str, tmp_path: Path, db: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, said = db("backup", str(tmp_path / "copy.db"))
    assert code == 3
    assert "ledger.db" in said
    assert list(tmp_path.iterdir()) == [], "nor is a ledger made up"
    Ledger.open(url).close()
    back_up(url, tmp_path / "copy.db")
    with pytest.raises(UsageError, match=r"copy\.db exists"):
        back_up(url, tmp_path / "copy.db")
    with pytest.raises(UnreachableError, match="cannot write the backup"):
        back_up(url, tmp_path / "missing" / "copy.db")


def test_postgresql_has_its_own_way() -> None:
    with pytest.raises(UsageError) as caught:
        back_up("postgresql://epochal@localhost/epochal", Path("copy.db"))
    assert "pg_dump" in caught.value.hint


def test_prune_makes_no_ledger_up(url: str, db: Callable[..., tuple[int, str, str]]) -> None:
    code, _, said = db("prune")
    assert code == 3
    assert "ledger.db" in said
    code, _, said = db("prune")
    assert code == 3, "it is not there now either"


def test_prune_says_what_it_deleted(url: str, db: Callable[..., tuple[int, str, str]]) -> None:
    with Ledger.open(url) as ledger:
        over, kept = (ledger.submit({"version": 1}, name="digits") for _ in range(2))
        ledger.request_stop(over.id)
    code, _, said = db("prune")
    assert (code, said.strip()) == (0, "nothing to delete: no job has ended as long ago as --retain says")
    ages = [f"--retain={kind}=0s" for kind in ("checkpoints", "spools", "logs", "code", "events", "jobs")]
    code, _, said = db("prune", "--retain=jobs=0s")
    assert "keeps jobs for 90d, because it does so as long as anything else of them is kept" in said
    code, _, said = db("prune", *ages)
    assert code == 0
    assert f"deleted the ledger's record of {over.id}" in said
    with Ledger.open(url) as ledger:
        assert [job.id for job in ledger.jobs()] == [kept.id]
