"""Several lines that are drawn over again, as nested progress bars are, as one line that is written over."""

from __future__ import annotations

import re

from epochal.terminal import shown

# `CSI n A` and `F` go up by n lines, `B` and `E` down; `F` and `E` to their beginning. `CSI K` clears the rest of one.
_UP = re.compile(rb"\x1b\[(\d*)([AF])")
_TOKENS = re.compile(rb"(?P<moves>[\r\n])|\x1b\[(?P<count>\d*)(?P<verb>[ABEF])|(?P<text>[^\r\n\x1b]+|\x1b)")
_BEGUN = re.compile(rb"\x1b(\[\d*)?\Z")
_MOST = 16
"""Lines that are drawn over at once."""
_LONGEST = 2**12
_KEPT_BYTES = 2**15
_CLEAR = b"\x1b[K"


class Rows:
    """What a stream prints, without moves to an earlier line, which a file cannot have: from the first of them on the
    lines between there and the lowest are parts of one, as in ``epoch 2/9 | step 30/90``, until a line below them has
    ended. Then each is a line again.
    """

    def __init__(self) -> None:
        self._before = b""
        """The end of what was printed, outside of rows."""
        self._rows: list[bytes] = []
        self._at = 0
        self._is_new = False
        """Whether the row was come to at its beginning: what comes now replaces it."""
        self._has_text = False
        """Whether anything was printed since it was come to: else it is only passed."""
        self._cut = b""

    def feed(self, data: bytes) -> bytes:
        """What to keep of ``data``. The beginning of a sequence is kept back until there is the rest of it."""
        data = self._cut + data
        begun = _BEGUN.search(data)
        data, self._cut = (data[: begun.start()], begun[0]) if begun else (data, b"")
        is_drawn, written = False, []
        while data:
            if self._rows:
                ended, data = self._draw(data)
                written.append(ended)
            else:
                up = _UP.search(data)
                plain, data = (data[: up.start()], data[up.end() :]) if up else (data, b"")
                self._before = (self._before + plain)[-_KEPT_BYTES:]
                written.append(plain)
                if up:
                    self._open(int(up[1] or 1), up[2])
            is_drawn = bool(self._rows)
        if is_drawn:
            parts = (_seen(row).strip() for row in self._rows)
            written.append(b"\r" + b" | ".join(part for part in parts if part) + _CLEAR)
        return b"".join(written)

    def flush(self) -> bytes:
        """What is kept back; the rows are lines from now on."""
        kept, self._cut = self._cut, b""
        while len(self._rows) > 1 and not _seen(self._rows[-1]).strip():
            del self._rows[-1]
        self._at = len(self._rows) - 1
        return (self._end() if self._rows else b"") + kept

    def _open(self, count: int, verb: bytes) -> None:
        lines = self._before.split(b"\n")[-min(count + 1, _MOST) :]
        if len(lines) > 1:
            self._rows, self._at = lines, 0
            self._is_new, self._has_text = verb == b"F", False

    def _draw(self, data: bytes) -> tuple[bytes, bytes]:
        """Follow the moves in ``data`` as far as the rows go; what is to be written, and what comes after them."""
        for token in _TOKENS.finditer(data):
            count = int(token["count"] or 1)
            if token["moves"] == b"\n":
                if self._at == _MOST or (self._has_text and self._at == len(self._rows) - 1):
                    return self._end(), data[token.start() :]
                self._move(self._at + 1, is_new=True)
            elif token["verb"]:
                way = -count if token["verb"] in b"AF" else count
                self._move(self._at + way, is_new=token["verb"] in b"EF")
            elif token["moves"]:
                self._rows[self._at] = _seen(self._rows[self._at]) + b"\r"
            else:
                self._rows[self._at] = (b"" if self._is_new else self._rows[self._at]) + token["text"]
                self._is_new, self._has_text = False, True
                if len(self._rows[self._at]) > _LONGEST:
                    return self._end(), data[token.end() :]
        return b"", b""

    def _move(self, at: int, is_new: bool) -> None:
        self._at = min(max(0, at), _MOST)
        self._rows += [b""] * (self._at + 1 - len(self._rows))
        self._is_new, self._has_text = is_new, False

    def _end(self) -> bytes:
        """The rows as lines, as far as the one that goes on."""
        first, *others = (_seen(row) for row in self._rows[: self._at + 1])
        self._rows, self._before = [], b"\n".join([first, *others])
        return b"\n".join([b"\r" + first + _CLEAR, *others])


def _seen(row: bytes) -> bytes:
    return shown(row.decode("utf-8", "replace")).encode()
