"""What is big of a job is read and written only where it is asked for."""

from __future__ import annotations

from pathlib import Path

import psutil

from epochal.ledger.ledger import Ledger
from epochal.ledger.values import Job

DIFF = "x" * 256 * 1024


def test_a_renewal_writes_little_however_big_the_diff_is(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        ledger.submit({"version": 1}, name="digits", origin={"git_diff": DIFF})
        lease = ledger.lease("agent", 60)
        assert lease is not None
        assert lease.job.origin["git_diff"] == DIFF
        before = psutil.Process().io_counters().write_chars
        for step in range(10):
            ledger.renew(lease, 60, {"step": step})
        assert (psutil.Process().io_counters().write_chars - before) / 10 < 64 * 1024


def test_lists_and_changes_come_without_documents(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        job = ledger.submit({"version": 1}, name="digits", origin={"git_diff": DIFF})
        (listed,) = ledger.jobs()
        for one in (listed, ledger.request_pause(job.id), ledger.job(job.id)):
            assert type(one) is Job
            assert len(str(one.to_dict())) < 2000
        assert ledger.full_job("digits").spec == {"version": 1}
