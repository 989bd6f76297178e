"""When following a job ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from epochal.cli.follow import Follower
from epochal.cli.main import main
from epochal.cli.progress import QuietDisplay
from epochal.client import Client
from epochal.errors import UnreachableError
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import EventKind, JobState
from epochal.ledger.values import Event, FullJob


def test_a_sweep_is_not_followed_at_a_server_that_has_never_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    tries_again = SimpleNamespace(sleep=lambda _: pytest.fail("it tries again"))
    monkeypatch.setattr("epochal.cli.commands.sweep.time", tries_again)
    monkeypatch.setenv("EPOCHAL_SERVER", "http://127.0.0.1:9")
    assert main(["sweep", "status", "-f", "one"]) == UnreachableError.exit_code


class _Paused:
    """A client of a job that its user pauses; something is told of it then, and once that was seen it is stopped."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._looks = 0

    def job(self, ref: str) -> FullJob:
        self._looks += 1
        return self._ledger.job(ref)

    def events(self, ref: str, follow: bool) -> Iterator[Event]:
        self._ledger.request_pause(ref)
        self._ledger.note(ref, EventKind.TRACKING, "MLflow has all of it now")
        yield from (told := self._ledger.events(ref))
        looks, until = self._looks, time.monotonic() + 10
        while self._looks < looks + 1 and time.monotonic() < until:
            time.sleep(0.01)
        self._ledger.request_stop(ref)
        yield from self._ledger.events(ref, told[-1].id)


def test_a_job_that_a_user_has_paused_is_followed_on_whatever_is_told_of_it() -> None:
    with Ledger.open("sqlite://") as ledger:
        job = ledger.submit({}, name="paused")
        client = cast(Client, _Paused(ledger))
        assert Follower(client, job.id, QuietDisplay(), with_logs=False).follow().state is JobState.STOPPED
