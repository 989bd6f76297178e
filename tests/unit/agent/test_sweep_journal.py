"""What a sweep's controller was told, on its way to the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from epochal.agent import sweep_journal
from epochal.agent.sweep_journal import SweepJournal
from epochal.errors import ConflictError, UnreachableError
from epochal.ledger.sweep_values import NewInput, StoredInput, TrialRecord
from epochal.sweeps.inputs import to_json
from epochal.sweeps.trials import Asked, Extended, Input
from polling import until


class Source:
    """Keeps what it is told, after it has raised what it was given."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.told: list[NewInput] = []
        self.trials: dict[int, TrialRecord] = {}

    def inputs(self, job_id: str) -> list[StoredInput]:
        return [StoredInput(seq, 1, one.body, one.key) for seq, one in enumerate(self.told, 1)]

    def append_inputs(
        self, lease: Any, after: int, told: Sequence[NewInput], changed: Sequence[TrialRecord] = ()
    ) -> int:
        if self.errors:
            raise self.errors.pop(0)
        assert after == len(self.told)
        self.told += told
        self.trials |= {one.number: one for one in changed}
        return len(self.told)


class Lease:
    job_id = "wine"


def journal(source: Source, given_up: bool = False) -> SweepJournal:
    return SweepJournal(cast(Any, source), cast(Any, Lease()), lambda: given_up)


def new(told: Input) -> NewInput:
    return NewInput(to_json(told))


def test_what_is_told_is_written_in_order_once_though_the_ledger_is_away_for_a_while() -> None:
    source = Source(UnreachableError("down", ""), UnreachableError("down", ""))
    told = [Extended(trials) for trials in range(1, 50)]
    with journal(source) as writing:
        for one in told:
            writing.tell(new(one))
    assert writing.failed is None
    assert [one.body["trials"] for one in source.told] == list(range(1, 50))
    assert journal(source).replayed() == told


def test_a_ledger_that_refuses_what_it_is_told_is_no_success() -> None:
    with journal(Source(ConflictError("the newest input is another", ""))) as writing:
        writing.tell(new(Asked()))
        until(lambda: writing.failed, "it is noticed while the sweep runs")
    assert isinstance(writing.failed, ConflictError)


@pytest.mark.parametrize("given_up", [True, False])
def test_a_ledger_that_stays_away_is_waited_for_as_long_as_the_end_of_an_attempt_may(
    monkeypatch: pytest.MonkeyPatch, given_up: bool
) -> None:
    monkeypatch.setattr(sweep_journal, "_LAST_SECONDS", 0.3)
    source = Source(*[UnreachableError("down", "")] * 1000)
    with journal(source, given_up) as writing:
        writing.tell(new(Asked()))
    assert isinstance(writing.failed, UnreachableError)
    assert len(source.errors) < 1000
