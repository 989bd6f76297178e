"""Opening a ledger: new, up to date, older, newer, by many at once; and the migrations."""

from __future__ import annotations

import ast
import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from epochal.errors import ConflictError, OlderLedgerError
from epochal.ledger import demands, migrations, schema
from epochal.ledger.capacity import Node
from epochal.ledger.database import Database
from epochal.ledger.ledger import Ledger
from epochal.ledger.maintenance import upgrade
from epochal.ledger.migrations import HEAD, VERSION_TABLE
from epochal.ledger.states import JobState
from epochal.ledger.tables import metadata
from epochal.ledger.values import WhyKind

FIRST_LEDGER = """
INSERT INTO jobs (id, name, spec, spec_digest, priority, submitted_by, origin, state, message, epoch, owner, expires_at,
    submitted_at, entered_at, updated_at, waited_seconds, ran_seconds)
VALUES ('old-1', 'old', '{"version": 1}', 'd', 50, 'ada', '{}', 'RUNNING', '', 1, 'agent', 0, 1, 2, 2, 1, 0);
INSERT INTO attempts (job_id, epoch, agent, leased_at, message, detail) VALUES ('old-1', 1, 'agent', 2, '', '{}');
INSERT INTO events (job_id, epoch, at, kind, previous, state, message, detail)
VALUES ('old-1', 0, 1, 'submitted', NULL, 'QUEUED', '', '{}')
"""
"""One job of each table, as the first revision wrote them."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'home' / 'ledger.db'}"


@pytest.fixture
def migrated(url: str) -> Iterator[Database]:
    """A database that went through every migration."""
    database = Database(url)
    with database.write() as connection:
        schema.migrate(connection)
    yield database
    database.close()


def test_an_installation_may_be_anywhere(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (there := tmp_path / "100% ours").symlink_to(Path(schema.__file__).parent)
    monkeypatch.setattr(schema, "__file__", str(there / "schema.py"))
    database = Database(url)
    with database.write() as connection:
        schema.migrate(connection, "0001")
        assert schema.version(connection) == "0001"
    database.close()


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def tables_of(database: Database) -> dict[str, str]:
    """Every table and index with its statement, blanks aside."""
    with database.read() as connection:
        found = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
        return {name: " ".join(sql.split()) for name, sql in found if name != "sqlite_sequence"}


def set_version(url: str, version: str) -> None:
    database = Database(url)
    with database.write() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = :version"), {"version": version})
    database.close()


def test_head_is_the_newest_migration() -> None:
    assert scripts().get_current_head() == HEAD
    assert scripts().get_bases() == ["0001"]


def test_migrations_are_named_by_their_revision() -> None:
    for script in scripts().walk_revisions():
        assert Path(script.path).name.startswith(f"v{script.revision}_")


def test_migrating_and_creating_give_the_same_tables(migrated: Database, tmp_path: Path) -> None:
    created = Database(f"sqlite:///{tmp_path / 'created.db'}")
    schema.prepare(created)
    assert tables_of(migrated) == tables_of(created)
    created.close()


def test_migrations_give_the_tables_that_the_code_has(migrated: Database) -> None:
    options = {"compare_type": True, "include_name": lambda name, kind, _: name != VERSION_TABLE}
    with migrated.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


def test_ledger_of_the_first_revision_is_upgraded_with_its_jobs(url: str) -> None:
    database = Database(url)
    with database.write() as connection:
        schema.migrate(connection, "0001")
        for statement in FIRST_LEDGER.split(";"):
            connection.execute(text(statement.replace(": 1}", "\\: 1}")))
    database.close()
    with Ledger.open(url) as ledger:
        job = ledger.full_job("old")
        assert (job.id, job.state, job.spec, job.wanted) == ("old-1", JobState.RUNNING, {"version": 1}, None)
        assert [attempt.epoch for attempt in ledger.expire()] == [1]
        assert [event.kind for event in ledger.events("old-1")] == ["submitted", "lease_expired"]


def test_upgrade_fills_in_what_the_queue_policy_reads(url: str) -> None:
    resources = {"workers": {"min": 2, "max": 3}, "cpus_per_worker": 2.0}
    spec = {"queue": "nightly", "preemptible": True, "resources": resources}
    database = Database(url)
    with database.write() as connection:
        schema.migrate(connection, "0001")
        for statement in FIRST_LEDGER.split(";"):
            connection.execute(text(statement.replace(": 1}", "\\: 1}")))
        change = "UPDATE jobs SET state = 'QUEUED', spec = :spec, origin = :origin"
        connection.execute(text(change), {"spec": json.dumps(spec), "origin": json.dumps({"code": "c1"})})
    database.close()
    assert upgrade(url) == ("0001", HEAD)
    assert upgrade(url) == (HEAD, HEAD)
    with Ledger.open(url) as ledger:
        job = ledger.job("old")
        assert (job.queue, job.preemptible) == ("nightly", True)
        three, four = ([Node("n", "n", {"CPU": count}, {"CPU": count})] for count in (3.0, 4.0))
        ledger.heartbeat("agent", "1", three, [], {})
        assert ledger.why("old").kind is WhyKind.NEVER_FITS
        ledger.heartbeat("agent", "1", four, [], {})
        assert ledger.why("old").kind is WhyKind.RUNS_NOW


def test_upgrade_keeps_keys_to_their_users_and_no_id_of_a_request_as_a_secret(url: str) -> None:
    database = Database(url)
    with database.write() as connection:
        schema.migrate(connection, "0004")
        for statement in FIRST_LEDGER.split(";"):
            connection.execute(text(statement.replace(": 1}", "\\: 1}")))
        connection.execute(text("UPDATE jobs SET key = 'nightly'"))
        connection.execute(text("UPDATE attempts SET request = 'r1'"))
    database.close()
    with Ledger.open(url) as ledger:
        assert ledger.job("old").key == "ada/nightly"
        for secret in ("", "r1"):
            with pytest.raises(ConflictError):
                ledger.held("old-1", 1, secret)


def test_upgrade_tells_sweeps_from_trainings(url: str) -> None:
    database = Database(url)
    with database.write() as connection:
        schema.migrate(connection, "0009")
        job = (
            "INSERT INTO jobs (id, name, spec_digest, priority, submitted_by, state, message, epoch, submitted_at,"
            " entered_at, updated_at, waited_seconds, ran_seconds)"
            " VALUES (:id, :id, 'd', 50, 'ada', 'QUEUED', '', 0, 1, 2, 2, 1, 0)"
        )
        document = "INSERT INTO documents (job_id, spec, origin) VALUES (:id, :spec, '{}')"
        for name, spec in (("one", {"sweep": None}), ("all", {"sweep": {"trials": 8}}), ("odd", [])):
            connection.execute(text(job), {"id": name})
            connection.execute(text(document), {"id": name, "spec": json.dumps(spec)})
    database.close()
    with Ledger.open(url) as ledger:
        assert {job.id: job.kind for job in ledger.jobs()} == {"one": "train", "all": "sweep", "odd": "train"}
        assert ledger.lease("agent", 60) is not None


def test_migrations_import_nothing_that_may_change() -> None:
    for script in scripts().walk_revisions():
        imported = [
            node for node in ast.walk(ast.parse(Path(script.path).read_text())) if isinstance(node, ast.ImportFrom)
        ]
        assert not [node.module for node in imported if str(node.module).startswith("epochal")], script.path


def test_upgrade_does_not_follow_what_a_later_version_reads(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    later = {**demands.columns_of({}, {}), "a_later_column": 1}
    monkeypatch.setattr(demands, "columns_of", lambda spec, origin: later)
    monkeypatch.delitem(sys.modules, "epochal.ledger.migrations.versions.v0002_queue_agents_tokens", raising=False)
    database = Database(url)
    with database.write() as connection:
        schema.migrate(connection, "0001")
        for statement in FIRST_LEDGER.split(";"):
            connection.execute(text(statement.replace(": 1}", "\\: 1}")))
    database.close()
    assert upgrade(url) == ("0001", HEAD)


def test_newer_ledger_is_refused(url: str) -> None:
    Ledger.open(url).close()
    set_version(url, "9999")
    with pytest.raises(ConflictError, match=r"version 9999, which is newer than this Epochal's") as caught:
        Ledger.open(url)
    assert "upgrade" in caught.value.hint


def test_older_ledger_is_left_alone_where_asked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Ledger.open(url).close()
    monkeypatch.setattr(schema, "HEAD", "9999")
    with pytest.raises(OlderLedgerError, match=f"version {HEAD}, older than this Epochal's 9999") as caught:
        Ledger.open(url, upgrade=False)
    assert "epochal db upgrade" in caught.value.hint


def test_file_is_its_owner_s_alone(url: str, tmp_path: Path) -> None:
    with Ledger.open(url) as ledger:
        ledger.submit({}, name="digits")
        for path in (tmp_path / "home").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
