"""What a terminal shows: of a line that is written over (progress bars, colours), and of a table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_TOKENS = re.compile(
    r"(?P<moves>[\r\b])"
    r"|\x1b\[(?P<parameters>[0-9;?]*)[ -/]*(?P<verb>[@-~])"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # a title, a link
    r"|(?P<text>[^\r\b\x1b]+|\x1b)"
)
_CLEARS = re.compile(r"\x1b\[[02]?K")


def shown(line: str) -> str:
    r"""What is left to see of a line: no colours, and of what was written over the newest state.

    >>> shown("\x1b[32m 10%\x1b[0m\r 90%\rdone\r"), shown("abcdef\rxy"), shown("12%\b\b\b30%")
    ('done', 'xycdef', '30%')
    """
    if not any(mark in line for mark in "\r\b\x1b"):
        return line
    cells: list[str] = []
    at = 0
    for token in _TOKENS.finditer(line):
        if text := token["text"]:
            cells[at : at + len(text)] = text
            at += len(text)
        elif token["moves"] == "\r":
            at = 0
        elif token["moves"]:
            at = max(0, at - 1)
        elif token["verb"] == "K" and token["parameters"] in ("", "0"):
            del cells[at:]
        elif token["verb"] == "K" and token["parameters"] == "2":
            cells[:] = " " * at
    # What bars leave behind where they are cleared.
    return "".join(cells).rstrip(" ") if "\r" in line else "".join(cells)


def newest(line: str) -> str:
    r"""The beginning of a line that goes on, without what was written over.

    >>> newest("10%\r20%\r30"), newest("abc")
    ('20%\r30', 'abc')
    """
    before, back, state = line.rpartition("\r")
    return shown(before) + back + state


def covers(newer: str, older: str) -> bool:
    r"""Whether nothing is left to see of ``older`` once ``newer`` is written over it, from the line's beginning on.

    >>> covers(" 10%", "  9%"), covers("ok", "100%"), covers("ok\x1b[K", "100%")
    (True, False, True)
    """
    if _CLEARS.search(newer):
        return True
    return not _CLEARS.search(older) and len(shown(newer)) >= len(shown(older))


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Cells padded to columns two spaces apart; the last column is not padded."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
