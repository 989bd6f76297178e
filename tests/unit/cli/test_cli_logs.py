"""`epochal logs -f` on a terminal, in a pipe and as JSON: what has begun is seen before it ends."""

from __future__ import annotations

import json
import re

import pytest

from epochal.cli.commands.logs import JsonPrinter, PlainPrinter, TerminalPrinter
from epochal.client.following import LogChunk

CHUNKS = ["one\nstep 1", "\rstep 2", "\rstep 3\n", "two", "\n"]


def show(printer: JsonPrinter, live: bool = True) -> None:
    for text in CHUNKS:
        printer.show([LogChunk(1, 0, 0, text)], live)
    printer.close()


def screen(printed: str) -> list[str]:
    """The lines of a terminal that obeys the few escapes that are used."""
    rows, row, column = [""], 0, 0
    for token in re.findall(r"\n|\r|\x1b\[\d*[AJ]|[^\n\r\x1b]+", printed):
        if token == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif token == "\r":
            column = 0
        elif token.endswith("A") and token.startswith("\x1b"):
            row -= int(token[2:-1])
        elif token == "\x1b[J":
            rows[row:] = [rows[row][:column]]
        else:
            rows[row] = rows[row][:column] + token + rows[row][column + len(token) :]
            column += len(token)
    return rows


def test_on_a_terminal_it_is_drawn_over(capsys: pytest.CaptureFixture[str]) -> None:
    printer = TerminalPrinter(with_rank=True)
    seen = []
    printed = ""
    for text in CHUNKS:
        printer.show([LogChunk(1, 0, 0, text)], live=True)
        printed += capsys.readouterr().out
        seen.append([row for row in screen(printed) if row])
    assert seen == [
        ["[rank 0] one", "[rank 0] step 1"],
        ["[rank 0] one", "[rank 0] step 2"],
        ["[rank 0] one", "[rank 0] step 3"],
        ["[rank 0] one", "[rank 0] step 3", "[rank 0] two"],
        ["[rank 0] one", "[rank 0] step 3", "[rank 0] two"],
    ]


def test_on_a_terminal_each_rank_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    printer = TerminalPrinter(with_rank=True)
    for step in range(3):
        printer.show([LogChunk(1, rank, 0, f"\rstep {step} " + "." * 200) for rank in (0, 1)], live=True)
    printed = capsys.readouterr().out
    drawn = screen(printed)
    assert [row[:15] for row in drawn if row] == ["[rank 0] step 2", "[rank 1] step 2"]
    assert all(len(row) < 80 for row in drawn)
    printer.close()
    assert [len(row) for row in screen(printed + capsys.readouterr().out) if row] == [216, 216]


def test_in_a_pipe_it_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epochal.cli.commands.logs.BEGUN_SECONDS", 0.0)
    show(PlainPrinter(with_rank=False))
    assert capsys.readouterr().out.splitlines() == ["one", "step 1", "step 3", "two", "two"]


def test_in_a_file_that_is_whole_there_are_lines_alone(capsys: pytest.CaptureFixture[str]) -> None:
    show(PlainPrinter(with_rank=False), live=False)
    assert capsys.readouterr().out.splitlines() == ["one", "step 3", "two"]


def test_as_json_there_are_lines_alone(capsys: pytest.CaptureFixture[str]) -> None:
    show(JsonPrinter())
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == ["one", "step 3", "two"]
