"""What a server meets seldom: numbers that no float can hold, code that is wanted again while old code is deleted."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import AgentInfo
from epochal.server.code_store import CodeStore
from epochal.server.held_metrics import of_agents
from epochal.server.log_store import LogStore
from epochal.server.retention import Pruner
from epochal.server.storage import Storage
from epochal.settings import Retention


def test_one_agent_that_tells_an_impossible_number_hides_no_other() -> None:
    agent = AgentInfo("one", "a", (), (), {"jobs": 10**400, "warm": 3}, started_at=1.0, seen_at=1.0, alive=True)
    told = {metric.name: metric.samples for metric in of_agents([agent, replace(agent, name="two")])}
    assert told["epochal_agent_jobs"] == []
    assert [sample.value for sample in told["epochal_agent_warm_workers"]] == [3, 3]


def test_code_that_a_job_wants_again_while_other_code_is_deleted_is_kept(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "store"))
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        for digest in ("a" * 64, "b" * 64):
            storage.write(("code", f"{digest}.zip"), b"")
            job = ledger.submit({"version": 1}, name="job", origin={"code": digest})
            lease = ledger.lease("agent/1", 60, job.id)
            assert lease is not None
            ledger.running(lease, world_size=1)
            ledger.finish(lease, JobState.FAILED, Reason.USER_ERROR)
        code = CodeStore(storage)
        deleted = Pruner(ledger, LogStore(storage), code, Retention(logs=None, code=0, jobs=None)).prune()
        assert next(deleted) == f"code {'a' * 12}"
        ledger.submit({"version": 1}, name="again", origin={"code": "b" * 64})
        assert list(deleted) == []
        assert code.digests() == {"b" * 64}


def test_what_is_stored_is_on_the_disk_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, fsync, done = Storage(str(tmp_path / "store")), os.fsync, list[Path]()

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", synced)
    storage.write(("logs", "job", "1"), b"printed")
    assert [path.relative_to(tmp_path).as_posix() for path in done[1:]] == ["store/logs/job", "store/logs", "store"]
    assert (tmp_path / "store/logs/job/1").read_bytes() == b"printed"
    done.clear()
    storage.write(("logs", "job", "2"), b"more")
    assert [path.name for path in done[1:]] == ["job"]
