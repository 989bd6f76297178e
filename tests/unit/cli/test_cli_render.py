"""What is printed, in every format, on a terminal and off it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from epochal.cli import render
from epochal.cli.render import Output
from epochal.errors import NotFoundError, Problem, SpecError
from epochal.units import Bytes, Duration

ROWS = [
    {"name": "one", "accuracy": 0.98765432, "tags": {"team": "vision"}, "hidden": float("nan")},
    {"name": "two\x1b[31m\nlines", "accuracy": None, "tags": {}, "hidden": Path("/a")},
]
COLUMNS = ["name", "accuracy", "tags"]


Draw = Callable[[Callable[[], None]], str]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Runs something with both streams on a pseudo terminal, and returns what it drew there."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")

    def drawn_by(action: Callable[[], None]) -> str:
        leader, follower = pty.openpty()
        with monkeypatch.context() as patch, open(follower, "w", encoding="utf-8") as stream:
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            action()
        return _read_to_the_end(leader).decode().replace("\r\n", "\n")

    return drawn_by


def _read_to_the_end(terminal: int) -> bytes:
    """What was written to a pseudo terminal whose other end is closed: Linux says so with an input/output error."""
    parts = []
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 4096):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts)


def test_a_table_off_a_terminal_is_plain_and_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    render.records(ROWS, COLUMNS, Output.TABLE, title="runs")
    assert capsys.readouterr().out.splitlines() == [
        "NAME            ACCURACY  TAGS",
        'one             0.987654  {"team": "vision"}',
        "two\N{REPLACEMENT CHARACTER}[31m lines  -         {}",
    ]


def test_a_table_on_a_terminal_is_drawn(draw: Draw) -> None:
    drawn = draw(lambda: render.records(ROWS, COLUMNS, Output.TABLE, title="runs"))
    assert "runs" in drawn
    assert "\N{BOX DRAWINGS LIGHT HORIZONTAL}" in drawn
    assert "0.987654" in drawn
    assert "two\x1b[31m" not in drawn


def test_no_color_takes_the_colors_off(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw(lambda: render.warning("careful")) == "\x1b[33mwarning:\x1b[0m careful\n"
    assert draw(lambda: render.document({"a": {"b": 1}})) == "\x1b[1ma.b\x1b[0m  1\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert draw(lambda: render.warning("careful")) == "warning: careful\n"
    assert draw(lambda: render.document({"a": {"b": 1}})) == "a.b  1\n"


def test_json_holds_every_key_and_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    render.records(ROWS, COLUMNS, Output.JSON)
    shown = json.loads(capsys.readouterr().out, parse_constant=_refuse)
    assert [row["hidden"] for row in shown] == ["nan", "/a"]
    assert shown[1]["name"] == ROWS[1]["name"]


def _refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")


def test_yaml_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    render.document({"size": Bytes(2**31), "time": Duration(90), "when": datetime(2026, 1, 2, tzinfo=UTC)}, Output.YAML)
    assert yaml.safe_load(capsys.readouterr().out) == {
        "size": "2GiB", "time": "1m30s", "when": "2026-01-02T00:00:00+00:00",
    }  # fmt: skip


def test_names_are_the_first_column_alone(capsys: pytest.CaptureFixture[str]) -> None:
    render.records(ROWS[:1], COLUMNS, Output.NAME)
    render.document({"id": "abc", "state": "RUNNING"}, Output.NAME)
    assert capsys.readouterr().out == "one\nabc\n"


@pytest.mark.parametrize(("output", "out"), [(Output.TABLE, ""), (Output.NAME, ""), (Output.JSON, "[]\n")])
def test_an_empty_list(output: Output, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    render.records([], COLUMNS, output, title="runs")
    shown = capsys.readouterr()
    assert shown.out == out
    assert shown.err == ("no runs\n" if output is Output.TABLE else "")


def test_a_document_off_a_terminal_is_dotted_lines(capsys: pytest.CaptureFixture[str]) -> None:
    render.document({"name": "cnn", "model": {"params": {"channels": [32, 64]}, "empty": {}}, "count": 5, "best": None})
    assert capsys.readouterr().out.splitlines() == [
        "name                   cnn",
        "model.params.channels  [32, 64]",
        "model.empty            {}",
        "count                  5",
        "best                   -",
    ]


def test_an_empty_document_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    render.document({})
    assert capsys.readouterr().out == ""


def test_messages_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    render.message("hello\x07")
    render.warning("careful")
    render.error(NotFoundError("run", "abc", ("abd",)))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "hello\N{REPLACEMENT CHARACTER}",
        "warning: careful",
        "error: no run is named 'abc'",
        "hint: did you mean 'abd'?",
    ]


def test_a_spec_s_problems_are_lines_of_a_compiler(capsys: pytest.CaptureFixture[str]) -> None:
    found = (
        Problem("train.lr", "is wrong", 2, 5, hint="mend it"),
        Problem("train.seed", "is wrong", origin="--set"),
        Problem("", "cannot be read"),
    )
    render.error(SpecError("job.yaml", found))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == [
        "error: job.yaml: 3 problems",
        "job.yaml:2:5: train.lr: is wrong (mend it)",
        "--set: train.seed: is wrong",
        "job.yaml: cannot be read",
    ]


def test_a_terminal_sees_the_line_and_a_caret(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    far = "x" * 300
    found = (Problem("b", "is wrong", 2, 4), Problem("c", "is wrong", 3, 304), Problem("d", "is gone", 9, 1))
    text = f"a: 1\nb:\t2\nc: {far}! {far}\n"
    lines = draw(lambda: render.problems(SpecError("job.yaml", found), text)).splitlines()
    assert lines[:3] == ["job.yaml:2:4: b: is wrong", "    2 | b: 2", "      |    ^"]
    assert lines[3] == "job.yaml:3:304: c: is wrong"
    assert lines[4][lines[5].index("^")] == "!"
    assert len(lines[4]) < 120
    assert lines[6:] == ["job.yaml:9:1: d: is gone"]


def test_a_dumb_terminal_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert not render.is_terminal(stream)
    monkeypatch.setenv("TERM", "xterm")
    assert render.is_terminal(stream)
