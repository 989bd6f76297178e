"""How jobs, logs and reasons look on a terminal."""

from __future__ import annotations

import math
from dataclasses import replace

from epochal.cli.follow import progress_of
from epochal.cli.job_view import bar, best, row, seconds, share, shortened, state, why_lines
from epochal.cli.log_lines import Lines, Pace
from epochal.client.following import LogChunk, LogFilter
from epochal.ledger.states import JobState, Reason
from epochal.ledger.values import FullJob, Why, WhyKind

PROGRESS = {
    "phase": "train", "step": 120, "total_steps": 480, "epoch": 2, "epochs": 8.0, "metrics": {"train/loss": 0.5},
}  # fmt: skip
JOB = FullJob(
    id="small-1", number=1, name="small", key=None, spec={}, spec_digest="d", priority=50, submitted_by="anna",
    origin={}, state=JobState.RUNNING, reason=None, message="", wanted=None, epoch=1, owner="agent/1", expires_at=None,
    run_id=None, tracking_uri=None, progress=PROGRESS, submitted_at=100.0, entered_at=110.0, first_started_at=110.0,
    started_at=110.0, ended_at=None, updated_at=110.0, waited_seconds=10.0, ran_seconds=0.0,
)  # fmt: skip


def chunk(text: str, rank: int = 0, attempt: int = 1) -> LogChunk:
    return LogChunk(attempt, rank, 0, text)


def test_lines_are_put_together_rank_by_rank() -> None:
    lines = Lines()
    found = [line for one in (chunk("a\nb"), chunk("x", 1), chunk("c\n"), chunk("y\n", 1)) for line in lines.of(one)]
    assert found == [(1, 0, "a"), (1, 0, "bc"), (1, 1, "xy")]
    assert list(lines.rest()) == []


def test_what_has_no_newline_comes_at_the_end() -> None:
    lines = Lines()
    assert list(lines.of(chunk("half"))) == []
    assert list(lines.rest()) == [(1, 0, "half")]
    assert list(lines.rest()) == []


def test_a_progress_bar_in_a_log_shows_its_last_state() -> None:
    lines = Lines()
    assert list(lines.of(chunk("10%\r 20%\r\x1b[32mdone\x1b[0m\r\nplain"))) == [(1, 0, "done")]


def test_what_has_begun_is_told_rank_by_rank_and_by_how_long_it_waits() -> None:
    now = [0.0]
    lines = Lines(lambda: now[0])
    assert list(lines.of(chunk("step 1"))) == []
    now[0] = 1.0
    assert list(lines.of(chunk("\rstep 2"))) == []
    assert list(lines.of(chunk("a\nother", rank=1))) == [(1, 1, "a")]
    assert lines.begun() == [(1, 0, "step 2"), (1, 1, "other")]
    assert lines.begun(0.5) == [(1, 0, "step 2")]
    assert list(lines.of(chunk("new", rank=1, attempt=2))) == [(1, 0, "step 2"), (1, 1, "other")], "these end"
    assert lines.begun() == [(2, 1, "new")]


def test_a_long_bar_does_not_grow() -> None:
    lines = Lines()
    for step in range(1000):
        assert list(lines.of(chunk(f"\rstep {step} |{'#' * 100}|"))) == []
    assert len(lines._begun[(1, 0)]) < 300


def test_a_state_is_told_now_and_then_where_nothing_can_be_drawn_over() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    told = []
    for second in range(25):
        now[0] = float(second)
        told += [(second, text) for _, _, text in pace.due([(1, 0, f"step {second}"), (1, 1, "Loading")])]
    assert told == [(0, "step 0"), (0, "Loading"), (10, "step 10"), (20, "step 20")]
    assert pace.due([]) == []
    assert pace.due([(1, 1, "Loading")]) == [(1, 1, "Loading")], "another line"


def test_the_tail_counts_for_the_first_question_alone() -> None:
    chosen = LogFilter(rank=1, tail=5)
    assert chosen.query("")["tail"] == 5
    assert chosen.query("1.0=7")["tail"] is None
    assert chosen.query("1.0=7")["cursor"] == "1.0=7"


def test_progress_in_a_table_and_by_itself() -> None:
    assert share(PROGRESS) == "25%"
    assert bar(PROGRESS) == "[######------------------] 120/480 steps, epoch 2/8"
    assert (share(None), bar(None), share({"total_steps": 0}), bar({})) == ("", "", "", "")


def test_progress_that_this_version_does_not_know() -> None:
    told = progress_of({**PROGRESS, "from_the_future": 1})
    assert told is not None
    assert (told.step, told.metrics) == (120, {"train/loss": 0.5})
    assert progress_of({"step": 1}) is None


def test_a_metric_that_is_not_finite_came_as_text() -> None:
    told = progress_of({**PROGRESS, "metrics": {"train/loss": "nan"}})
    assert told is not None
    assert math.isnan(told.metrics["train/loss"])


def test_a_reason_is_shown_where_it_says_more_than_the_state() -> None:
    assert state(JOB) == "RUNNING"
    assert state(replace(JOB, state=JobState.SUCCEEDED, reason=Reason.COMPLETED)) == "SUCCEEDED"
    assert state(replace(JOB, state=JobState.FAILED, reason=Reason.OUT_OF_MEMORY)) == "FAILED (OUT_OF_MEMORY)"


def test_times_are_by_the_server_s_clock() -> None:
    shown = row(JOB, now=115.0)
    assert (shown["waited"], shown["ran"]) == ("10s", "5s")
    assert seconds(3725) == "1h2m5s"
    assert seconds(-3) == "0s"


def test_messages_fit_a_table() -> None:
    assert shortened("rank 1: no such file\nTraceback ...") == "rank 1: no such file..."
    assert len(shortened("x" * 500)) == 60


def test_why_says_what_to_change() -> None:
    why = Why(WhyKind.NEVER_FITS, "3 workers can never fit", change="resources.workers=2")
    assert why_lines(why) == ["3 workers can never fit", "to start it: resources.workers=2"]
    assert why_lines(Why(WhyKind.RUNS_NOW, "it runs")) == ["it runs"]


def test_a_sweep_counts_its_trials() -> None:
    told = {"trials": 32, "done": 8, "running": 2, "failed": 0, "best": {"trial": 7, "value": 0.931}}
    assert (share(told), best(told)) == ("25%", "0.931 (trial 7)")
    assert bar(told) == "[######------------------] 8/32 trials, 2 running"
    assert best({"trials": 32, "best": None}) == best(PROGRESS) == best(None) == ""
    assert (share({"trials": 32}), bar({"trials": 32})) == ("0%", f"[{'-' * 24}] 0/32 trials")
