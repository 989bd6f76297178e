"""Tables on a terminal of some width, those of trials above all."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console, RenderableType

from epochal.agent.sweep_progress import SweepProgress
from epochal.cli.progress import LiveDisplay
from epochal.cli.sweep_view import columns, row
from epochal.cli.terminal_table import drawn
from epochal.ledger.sweep_values import TrialRecord
from epochal.spec.job import Objective
from epochal.sweeps.trials import Measured, Trial, TrialState

POINT = {
    "train.optimizer.lr": 0.008444218,
    "train.optimizer.weight_decay": 7.5795e-05,
    "model.params.channels": [32, 64, 64],
    "model.params.pool": "max",
}


def lines(width: int, *shown: RenderableType) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    for one in shown:
        console.print(one)
    written: str = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in written.splitlines() if line.strip()]


def test_words_stay_whole_and_a_long_cell_takes_several_lines() -> None:
    cells = {"id": ["ID", "1"], "why": ["WHY IT ENDED", "rank 0: out of memory"]}
    table, left_out = drawn(cells, 20)
    assert (lines(20, table), left_out) == (["ID  WHY IT ENDED", "─" * 20, "1   rank 0: out of", "    memory"], [])
    assert lines(40, drawn(cells, 40)[0])[-1] == "1   rank 0: out of memory"


def test_columns_that_can_be_spared_give_way_in_their_order() -> None:
    cells = {name: [name, name * 4] for name in ("aa", "bb", "cc", "dd")}
    for room, gone in ((38, []), (37, ["cc"]), (28, ["cc"]), (27, ["aa", "cc"])):
        table, left_out = drawn(cells, room, spare=["cc", "aa"])
        assert left_out == gone
        assert lines(room, table)[-1].split() == [name * 4 for name in cells if name not in gone]


def test_where_nothing_can_be_spared_words_are_broken_and_nothing_is_lost() -> None:
    table, left_out = drawn({"a": ["A", "x" * 12], "b": ["B", "y" * 12]}, 18)
    assert left_out == []
    assert "".join(lines(18, table)).count("x") == "".join(lines(18, table)).count("y") == 12


def test_numbers_stand_to_the_right() -> None:
    assert lines(20, drawn({"n": ["N", "1", "100"]}, 20, numbers=["n"])[0])[-2:] == ["  1", "100"]


@pytest.mark.parametrize(("width", "left_out"), [(80, ["run", "ran", "message"]), (120, [])])
def test_a_row_of_a_trial_fits(width: int, left_out: Sequence[str]) -> None:
    names = columns(POINT)
    failed = TrialRecord(7, POINT, TrialState.FAILED, 9.0, 9.0, 0.986111, run_id="0123456789", reason="OUT_OF_MEMORY")
    done = TrialRecord(8, POINT, TrialState.COMPLETED, 9.0, 9.0, 0.98)
    shown = [row(one, names) for one in (failed, done)]
    cells = {name: [name.replace("_", " "), *(str(one[name]) for one in shown)] for name in row(None, names)}
    table, gone = drawn(cells, width, spare=("ran", "run", "message", *reversed(names.values())))
    assert gone == left_out
    assert lines(width, table)[-1].split()[:6] == ["8", "COMPLETED", "9.0", "0.98", "0.00844", "7.58e-05"]


def test_what_is_called_as_a_column_of_every_table_has_more_of_its_path() -> None:
    assert columns(["model.params.length", "model.params.width"]) == {
        "model.params.length": "params.length",
        "model.params.width": "width",
    }


def test_a_path_that_another_ends_in_is_a_column_by_its_whole() -> None:
    assert columns(["task", "data.params.task"]) == {"task": "task", "data.params.task": "params.task"}


def test_the_best_trials_of_a_running_sweep_take_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    trials = [Trial(n, POINT, TrialState.COMPLETED, 9.0, (Measured(9.0, n / 10),)) for n in range(3)]
    with LiveDisplay() as shown:
        shown.sweep(SweepProgress(Objective(metric="val/accuracy", mode="max"), trials, 27, trials[2]))
        drawn_lines = lines(80, shown._rows())
    assert drawn_lines[1].split() == ["trial", "state", "length", "val/accuracy", "lr", "decay", "channels", "pool"]
    assert [line.split()[0] for line in drawn_lines[3:6]] == ["2", "1", "0"]
    assert all(line.endswith("[32, 64, 64]  max") for line in drawn_lines[3:6])
    with LiveDisplay() as shown:
        monkeypatch.setenv("COLUMNS", "60")
        shown.sweep(SweepProgress(Objective(metric="val/accuracy", mode="max"), trials, 27, trials[2]))
        assert shown._bar is not None
        shown._bar.console.width = 60
        assert "no room for channels, pool" in lines(60, shown._rows())
