"""The first steps of a job, for tests that are about the next one."""

from __future__ import annotations

from epochal.ledger.ledger import Ledger
from epochal.ledger.states import JobState
from epochal.ledger.values import FullJob, Lease

SPEC = {"version": 1, "name": "digits-cnn", "train": {"epochs": 5, "lr": 1e-3}}


def submit(ledger: Ledger, name: str = "digits-cnn", **options) -> FullJob:
    return ledger.submit(SPEC, name=name, **options)


def leased(ledger: Ledger, ttl: float = 60.0) -> Lease:
    """A lease of a newly submitted job, which is STARTING."""
    job = submit(ledger)
    lease = ledger.lease("agent-1", ttl, job.id)
    assert lease is not None
    return lease


def running(ledger: Ledger, ttl: float = 60.0) -> Lease:
    lease = leased(ledger, ttl)
    ledger.running(lease, world_size=2)
    return lease


def state(ledger: Ledger, lease: Lease) -> JobState:
    return ledger.job(lease.job_id).state
