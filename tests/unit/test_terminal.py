"""What a terminal shows of a line that is written over."""

from __future__ import annotations

import pytest

from epochal.terminal import newest, shown


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("plain", "plain"),
        ("", ""),
        ("\r", ""),
        ("text\r", "text"),
        ("10%\r20%\r30%", "30%"),
        ("10%\r20%\r30%\r", "30%"),
        ("\r 10%\r 20%", " 20%"),
        ("abcdef\rxy", "xycdef"),
        ("abcdef\rxy    ", "xy"),
        ("abcdef\r      \r", ""),
        ("abcdef\r\x1b[Kxy", "xy"),
        ("abcdef\rxy\x1b[K", "xy"),
        ("abcdef\r\x1b[2Kxy", "xy"),
        ("\x1b[32mgreen\x1b[0m and \x1b[1;31mred\x1b[0m", "green and red"),
        ("\x1b]0;title\x07\x1b[2J\x1b[1;31mred\x1b[0m end", "red end"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("12%\b\b\b30%", "30%"),
        ("ab\b\b\b\bc", "cb"),
        ("50%|█████     |\r60%|██████    |", "60%|██████    |"),
        ("trailing  ", "trailing  "),
        ("lone \x1b escape", "lone \x1b escape"),
    ],
)
def test_lines(line: str, seen: str) -> None:
    assert shown(line) == seen
    for at in range(len(line)):
        if "\x1b" not in line:
            assert shown(newest(line[:at]) + line[at:]).rstrip() == seen.rstrip(), "it may come in two pieces"


def test_a_long_line_with_many_colours_is_quick() -> None:
    assert len(shown("\x1b[32mx\x1b[0m" * 20_000)) == 20_000
