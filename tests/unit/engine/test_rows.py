"""Bars in several lines, which a file cannot be drawn over with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tqdm import tqdm

from epochal.engine.relay import Lines
from epochal.engine.rows import Rows
from epochal.terminal import shown

UP = "\x1b[A"


class Pieces(list[bytes]):
    """A stream that keeps what is written to it, each write by itself."""

    def write(self, text: str) -> None:
        self.append(text.encode())

    def flush(self) -> None:
        pass


def kept(pieces: list[bytes], has_ended: bool = False) -> list[str]:
    """The lines that somebody sees who reads all of the file, while the worker runs or once it ``has_ended``."""
    rows, lines, tick = Rows(), Lines(), 0.0
    written = []
    for piece in pieces:
        tick += 0.02
        written.append(lines.feed(rows.feed(piece), tick))
    written += [lines.feed(rows.flush() if has_ended else b"", tick), lines.flush()]
    return [shown(line) for line in b"".join(written).decode().split("\n")]


@pytest.mark.parametrize(
    ("printed", "seen"),
    [
        ("plain\nlines\n", ["plain", "lines", ""]),
        (f"a 1\n\rb 1{UP}", ["a 1", "a 1 | b 1"]),
        (f"a 1\n\rb 1{UP}\ra 2", ["a 1", "a 2 | b 1"]),
        (f"a 1\n\rb 1{UP}\ra 2\n\rb 2{UP}\n\rb 3{UP}", ["a 1", "a 2 | b 3"]),
        (f"a 1\n\rb 1{UP}\ra 2\n\rb 2\ndone\n", ["a 1", "a 2", "b 2", "done", ""]),
        ("a\nb\nc\x1b[2A\rA\nB\nC\x1b[2A\rx\nyy\nz\n", ["a", "b", "x", "yy", "z", ""]),
        ("a\nb\n\x1b[2F1\n2\n\x1b[2F3\n4\n", ["a", "b", "3 | 4"]),
        ("a\nb\n\x1b[2F1\n2\n\x1b[2F3\n4\ndone\n", ["a", "b", "3", "4", "done", ""]),
        (f"a\n\rb{UP}\n\n\rc{UP}{UP}", ["a", "a | b | c"]),
        (f"long one\n\rb{UP}\rs\x1b[K", ["long one", "s | b"]),
        (f"\x1b[32mgreen\x1b[0m\n\rb{UP}", ["green", "green | b"]),
        (f"first{UP}line\n", ["firstline", ""]),
        (f"{UP}{UP}x\n", ["x", ""]),
        ("head\n" + f"a\n\rb{UP}" + "\r  \r" + "end\nlast\n", ["head", "a", "end", "last", ""]),
        (f"a\n\rb{UP}" + "x" * 5000 + "\nnext\n", ["a", "a" + "x" * 5000, "next", ""]),
        (f"é█\n\rß█{UP}\ré█2\n\rß█2{UP}", ["é█", "é█2 | ß█2"]),
    ],
    ids=range(16),
)
@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_rows_are_parts_of_one_line_and_lines_once_they_have_ended(printed: str, seen: list[str], size: int) -> None:
    data = printed.encode()
    assert kept([data[at : at + size] for at in range(0, len(data), size)]) == seen


@pytest.mark.parametrize("leave", [False, True, None])
@pytest.mark.parametrize("inner", [1, 2])
def test_nested_bars(leave: bool | None, inner: int) -> None:
    def bar(count: int, name: str, position: int, leave: bool | None = True) -> Iterator[int]:
        return tqdm(
            range(count), desc=name, file=stream, position=position, leave=leave, mininterval=0, bar_format="{desc} {n}"
        )

    stream = Pieces()
    for _ in bar(3, "epoch", 0):
        for _ in bar(50, "step", 1, leave):
            if inner == 2:
                list(bar(2, "micro", 2, False))
    stream.write("done\n")
    live = Rows()
    states = [shown(live.feed(piece).decode().rpartition("\n")[2]) for piece in stream]
    assert "epoch 1 | step 30" in "\n".join(states)
    lines = kept(stream, has_ended=True)
    assert [line for line in lines if line][-1] == "done"
    assert "epoch 3" in lines
    assert len(lines) <= 10


def test_what_has_ended_in_the_middle_of_rows_is_lines() -> None:
    assert kept([f"a\n\rb{UP}\ra 2".encode()], has_ended=True) == ["a", "a 2", "b"]
    assert kept([b"a\x1b["], has_ended=True) == ["a\x1b["]


def test_the_file_grows_by_a_state_a_second() -> None:
    rows, lines = Rows(), Lines()
    size = 0
    for tick in range(1000):
        piece = f"\repoch {tick // 100}\n\rstep {tick}{UP}".encode()
        size += len(lines.feed(rows.feed(piece), tick / 10))
    assert size < 101 * len("\repoch 9 | step 999\x1b[K") + 20
