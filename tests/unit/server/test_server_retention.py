"""What a server deletes of its store once jobs have ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Reason
from epochal.server.code_store import CodeStore
from epochal.server.log_store import LogStore, Stream
from epochal.server.retention import Pruner
from epochal.server.services import Services
from epochal.server.settings import ServerSettings
from epochal.server.storage import Storage
from epochal.settings import DEFAULT_RETENTION, Retention

AT_ONCE = Retention(logs=0, code=0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def submit(ledger: Ledger, folder: Path, code: str, ends: bool) -> str:
    """The id of a job that has printed something, and has ended, or is paused."""
    job = ledger.submit({"version": 1}, name="job", origin={"code": code})
    lease = ledger.lease("agent/1", 60, job.id)
    assert lease is not None
    ledger.running(lease, world_size=1)
    if ends:
        ledger.finish(lease, JobState.FAILED, Reason.USER_ERROR)
    else:
        ledger.pause(lease)
    LogStore(Storage(str(folder))).append(job.id, Stream(1, 0), 0, b"printed\n")
    package = folder / "code" / f"{code}.zip"
    package.parent.mkdir(exist_ok=True)
    package.touch()
    return job.id


def test_logs_and_code_go_with_the_jobs_that_need_them(ledger: Ledger, store: Path) -> None:
    logs, code = LogStore(Storage(str(store))), CodeStore(Storage(str(store)))
    over = submit(ledger, store, "one", ends=True)
    submit(ledger, store, "shared", ends=True)
    waiting = submit(ledger, store, "shared", ends=False)
    logs.append("another-ledgers", Stream(1, 0), 0, b"printed\n")
    before = logs.jobs()
    assert list(Pruner(ledger, logs, code, DEFAULT_RETENTION).prune()) == []
    deleted = list(Pruner(ledger, logs, code, AT_ONCE).prune())
    assert f"logs of {over}" in deleted
    assert "code one" in deleted
    assert len(deleted) == 3
    assert logs.jobs() == {waiting, "another-ledgers"} < before
    assert code.digests() == {"shared"}
    assert logs.read(waiting, Stream(1, 0), logs.logs(waiting)[Stream(1, 0)], 0, 100) == b"printed\n"
    assert list(Pruner(ledger, logs, code, AT_ONCE).prune()) == []


def test_the_logs_of_an_attempt_that_is_over_become_one(ledger: Ledger, store: Path) -> None:
    logs, code = LogStore(Storage(str(store))), CodeStore(Storage(str(store)))
    over = submit(ledger, store, "one", ends=False)
    lives = ledger.submit({"version": 1}, name="job")
    assert ledger.lease("agent/2", 60, lives.id)
    for job_id, start in ((over, 8), (lives.id, 0)):
        logs.append(job_id, Stream(1, 0), start, b"more\n")
        logs.append(job_id, Stream(1, 0), start + 5, b"and more\n")
    for _ in range(2):  # the second deletes what the first merged
        assert list(Pruner(ledger, logs, code, DEFAULT_RETENTION).prune()) == []
    assert [path.name for path in (store / "logs" / over).rglob("0*-*")] == [f"{0:020}-22"]
    assert len(list((store / "logs" / lives.id).rglob("0*-*"))) == 2
    assert logs.read(over, Stream(1, 0), logs.logs(over)[Stream(1, 0)], 0, 100) == b"printed\nmore\nand more\n"


def test_a_servers_reconciler_counts_and_tells_what_was_deleted(
    ledger: Ledger, store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    job = submit(ledger, store, "one", ends=True)
    settings = ServerSettings(f"sqlite:///{tmp_path / 'ledger.db'}", str(store), retention=AT_ONCE)
    services = Services.open(settings)
    services.reconciler.prune()
    services.ledger.close()
    assert services.reconciler.counts.done["retention"] == 2
    assert f"deleted the logs of {job}, as old as --retain says" in caplog.text
