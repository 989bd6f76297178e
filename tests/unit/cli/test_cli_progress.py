"""What a job that runs says where nobody looks at a terminal."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from epochal.cli import render
from epochal.cli.progress import LiveDisplay, PlainDisplay, counted
from epochal.ledger.states import JobState
from epochal.training.control import Progress

AT_ONE = Progress(phase="train", step=1, total_steps=100, epoch=0, epochs=5.0, metrics={"train/loss": 2.0})


def job(state: JobState) -> Any:
    return SimpleNamespace(id="job-1", state=state)


def test_each_state_is_said_once_with_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    shown = PlainDisplay()
    for state in (JobState.STARTING, JobState.RUNNING, JobState.RUNNING, JobState.QUEUED, JobState.RUNNING):
        shown.state(job(state))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[-1] for line in lines] == ["STARTING", "RUNNING", "QUEUED", "RUNNING"]
    assert all(re.match(r"\d\d:\d\d:\d\d job-1 ", line) for line in lines)


def test_progress_comes_at_intervals_whatever_the_epoch_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    shown = PlainDisplay(every=3600)
    for step in range(1, 101):
        shown.progress(replace(AT_ONE, step=step, epoch=step // 20))
    shown.progress(replace(AT_ONE, step=100, epoch=5, phase="export"))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("step ")[2].split()[0] for line in lines] == ["1/100", "100/100"]
    assert re.fullmatch(r"\d\d:\d\d:\d\d epoch 0/5  step 1/100  train/loss 2", lines[0])


def test_a_line_that_has_begun_is_told_before_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    shown = PlainDisplay()
    for text, begun in (("one\n", ""), ("", "step 1"), ("", "step 2"), ("step 3\ntwo\n", ""), ("", "step 4")):
        shown.log(0, text, begun)
    lines = ["one", "step 1", "step 3", "two", "step 4"]
    assert capsys.readouterr().err.splitlines() == [f"[rank 0] {line}" for line in lines]


def test_a_terminal_obeys_nothing_that_a_worker_prints() -> None:
    with LiveDisplay() as shown:
        shown._bar.console.file = printed = io.StringIO()
        shown.log(0, "\x0eone\n", "\x0etwo")
        shown.notice("\x1b]0;three")
        Console(file=printed, width=60).print(shown._rows())
    assert [word for word in ("one", "two", "three") if word not in printed.getvalue()] == []
    assert not {"\x0e", "\x1b"} & set(printed.getvalue())


def test_a_terminal_shows_it_above_the_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with LiveDisplay() as shown:
        shown.log(1, "one\n", "step 1 [x]" + "." * 100)
        console = Console(file=io.StringIO(), width=60)
        console.print(shown._rows())
        assert console.file.getvalue().startswith("[rank 1] step 1 [x]....")  # type: ignore[attr-defined]
        shown.log(1, "step 2\n")
        assert "step" not in str(shown._rows().renderables)
    assert "[rank 1] one\n[rank 1] step 2\n" in capsys.readouterr().err


def test_a_terminal_shows_what_workers_print_and_metrics_are_called_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with LiveDisplay() as shown:
        shown.log(0, "10:100:20 :fire: [bold] a[1]\n")
        shown.progress(replace(AT_ONE, metrics={"val/f1[a]": 0.5}))
        console = Console(file=io.StringIO(), width=200)
        console.print(shown._rows())
        assert "val/f1[a] 0.5" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "[rank 0] 10:100:20 :fire: [bold] a[1]\n" in capsys.readouterr().err


def test_what_is_counted_is_a_bar_on_a_terminal_and_nothing_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted("reading the data", 3) as tell:
        tell(3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(render, "is_terminal", lambda stream: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with counted("reading the data", 3) as tell:
        tell(3)
    assert re.search(r"reading the data.*3/3", capsys.readouterr().err)
