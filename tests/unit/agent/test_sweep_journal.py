"""What a sweep's controller was told, on its way to the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from epochal.agent import sweep_journal
from epochal.agent.sweep_journal import SweepJournal
from epochal.errors import ConflictError, UnreachableError
from epochal.ledger.sweep_values import NewInput, StoredInput, SweepRequest, TrialRecord
from epochal.sweeps.inputs import to_json
from epochal.sweeps.trials import Asked, Extended, Input
from polling import until

Journal = Callable[..., SweepJournal]


class Source:
    """Keeps what it is told, after it has raised what it was given. ``epoch`` wrote what is there."""

    def __init__(self, *errors: Exception, epoch: int = 1) -> None:
        self.errors = list(errors)
        self.epoch = epoch
        self.told: list[NewInput] = []
        self.trials: dict[int, TrialRecord] = {}
        self.asked: list[SweepRequest] = []

    def requests(self, job_id: str, after: int) -> list[SweepRequest]:
        return [one for one in self.asked if one.seq > after]

    def inputs(self, job_id: str) -> list[StoredInput]:
        return [StoredInput(seq, self.epoch, one.body, one.key) for seq, one in enumerate(self.told, 1)]

    def append_inputs(
        self, lease: Any, after: int, told: Sequence[NewInput], changed: Sequence[TrialRecord] = ()
    ) -> int:
        if self.errors:
            raise self.errors.pop(0)
        assert after == len(self.told)
        self.told += told
        self.trials |= {one.number: one for one in changed}
        return len(self.told)


@dataclass(frozen=True)
class Lease:
    epoch: int
    job_id: str = "wine"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Makes the journal of an attempt in the job's folder."""

    def made(source: Source, epoch: int = 1, given_up: bool = False) -> SweepJournal:
        return SweepJournal(cast(Any, source), cast(Any, Lease(epoch)), tmp_path, lambda: given_up)

    return made


def new(told: Input) -> NewInput:
    return NewInput(to_json(told))


def test_what_is_told_is_written_in_order_once_though_the_ledger_is_away_for_a_while(journal: Journal) -> None:
    source = Source(UnreachableError("down", ""), UnreachableError("down", ""))
    told = [Extended(trials) for trials in range(1, 50)]
    with journal(source) as writing:
        for one in told:
            writing.tell(new(one))
    assert writing.failed is None
    assert [one.body["trials"] for one in source.told] == list(range(1, 50))
    assert journal(source, 2).replayed() == (told, [])


def test_a_ledger_that_refuses_what_it_is_told_is_no_success(journal: Journal) -> None:
    with journal(Source(ConflictError("the newest input is another", ""))) as writing:
        writing.tell(new(Asked()))
        until(lambda: writing.failed, "it is noticed while the sweep runs")
    assert isinstance(writing.failed, ConflictError)


def test_an_error_that_nobody_foresaw_is_no_success_either(journal: Journal) -> None:
    with journal(Source(cast(Any, RuntimeError("a bug")))) as writing:
        writing.tell(new(Asked()))
        until(lambda: writing.failed, "it is noticed while the sweep runs")
    assert "a bug" in str(writing.failed)


@pytest.mark.parametrize("given_up", [True, False])
def test_a_ledger_that_stays_away_is_waited_for_as_long_as_the_end_of_an_attempt_may(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, given_up: bool
) -> None:
    monkeypatch.setattr(sweep_journal, "_LAST_SECONDS", 0.3)
    source = Source(*[UnreachableError("down", "")] * 1000)
    with journal(source, given_up=given_up) as writing:
        writing.tell(new(Asked()))
    assert isinstance(writing.failed, UnreachableError)
    assert len(source.errors) < 1000


def test_what_a_killed_agent_had_not_told_the_ledger_the_next_attempt_knows(journal: Journal) -> None:
    told = [Extended(trials) for trials in range(1, 8)]
    source = Source()
    killed = journal(source)  # its thread writes nothing: it was never started
    assert killed.replayed() == ([], [])
    for one in told:
        killed.tell(NewInput(to_json(one), "asked" if one.trials == 5 else None))
    source.told = [new(one) for one in told[:3]]

    again = journal(source, 2)
    assert again.replayed() == (told[:3], told[3:])
    third = journal(source, 3)  # the second was killed before it wrote a word
    assert third.replayed() == (told[:3], told[3:])
    with third:
        third.tell(new(Extended(8)))
    assert [one.body["trials"] for one in source.told] == list(range(1, 9))
    assert [one.key for one in source.told] == [None] * 4 + ["asked"] + [None] * 3


@pytest.mark.parametrize("wrote", [2, 3])
def test_a_file_that_the_ledger_has_gone_beyond_is_not_believed(journal: Journal, wrote: int) -> None:
    """The attempt that wrote it was taken for dead, and another one on other storage has gone on."""
    late = journal(Source())
    late.replayed()
    for trials in range(1, 8):
        late.tell(new(Extended(trials)))
    other = Source(epoch=wrote)
    other.told = [new(Extended(100))]
    assert journal(other, wrote + 1).replayed() == ([Extended(100)], [])


def test_a_file_behind_a_gap_is_not_believed(journal: Journal) -> None:
    """The ledger is an older copy of itself."""
    source = Source()
    with journal(source) as writing:
        for trials in range(1, 4):
            writing.tell(new(Extended(trials)))
    later = journal(source, 2)
    later.replayed()
    later.tell(new(Extended(4)))
    del source.told[1:]
    assert journal(source, 3).replayed() == ([Extended(1)], [])


def test_half_a_line_of_a_killed_agent_is_not_read(journal: Journal, tmp_path: Path) -> None:
    killed = journal(Source())
    killed.replayed()
    killed.tell(new(Extended(1)))
    with (tmp_path / "trials" / "inputs-00001.jsonl").open("ab") as file:
        file.write(b'{"seq":2,"key":null,"bo')
    assert journal(Source(), 2).replayed() == ([], [Extended(1)])


def test_what_was_refused_is_not_heard_again_by_the_next_attempt(journal: Journal) -> None:
    """A trial that had ended with its sweep was not to be cancelled; once the sweep was extended, it was."""
    source = Source()
    bodies = ({"kind": "cancel", "trial": 0}, {"kind": "extend", "trials": 3}, {"kind": "cancel", "trial": 1})
    source.asked = [SweepRequest(seq, f"key-{seq}", body, datetime.now(UTC), "") for seq, body in enumerate(bodies, 1)]
    source.told = [NewInput(to_json(Extended(3)), "key-2")]
    following = journal(source, 2)
    following.replayed()
    assert [one.seq for one in following.asked()] == [3]
    assert following.asked() == []
