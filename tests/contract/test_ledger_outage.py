"""The database goes away and comes back."""

from __future__ import annotations

import pytest
from ledger_steps import leased, submit

from epochal.errors import UnreachableError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState
from postgres import Postgres

pytestmark = pytest.mark.slow


def test_open_ledger_outlives_a_restart_of_postgresql(postgres: Postgres) -> None:
    with Ledger.open(postgres.new_url()) as ledger:
        job, lease = submit(ledger, "wine"), leased(ledger)
        postgres.stop()
        try:
            for call in (ledger.now, lambda: ledger.renew(lease, 60), lambda: submit(ledger)):
                with pytest.raises(UnreachableError, match="cannot use the ledger postgresql"):
                    call()
        finally:
            postgres.start()
        assert ledger.renew(lease, 60).state is JobState.STARTING
        assert {found.id for found in ledger.jobs()} == {job.id, lease.job_id}
