"""A file's bytes as text: by the encoding that is given, or that their beginning tells."""

from __future__ import annotations

import codecs
from pathlib import Path

from epochal.errors import EpochalError
from epochal.redaction import said

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it starts with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NO_TEXT = {
    b"PK\x03\x04": ("a zip archive, or a spreadsheet", "unpack the archive, or save a spreadsheet as .csv"),
    b"\xd0\xcf\x11\xe0": ("an old spreadsheet", "save it as .csv"),
    b"\x1f\x8b": ("data packed by gzip", "have its name end in .gz"),
    b"BZh": ("data packed by bzip2", "have its name end in .bz2"),
    b"\x28\xb5\x2f\xfd": ("data packed by zstd", "have its name end in .zst"),
    b"PAR1": ("Parquet", "have its name end in .parquet"),
    b"version https://git-lfs": ("a pointer of Git LFS in place of the data", "fetch the data: `git lfs pull`"),
}
"""What files begin with that are no table of text, and what to do."""


def decoded(path: Path, data: bytes, encoding: str | None) -> tuple[str, str]:
    """The text of ``path``, and the name of its encoding.

    Raises:
        EpochalError: it is no text, or in another encoding.
    """
    name = encoding or _encoding(path, data)
    try:
        return data.decode(name), name
    except UnicodeDecodeError as error:
        raise EpochalError(
            f"{path} (byte {error.start:,}): found {data[error.start : error.end]!r}, expected text in {name}",
            "mend the file, or set another data.params.encoding",
        ) from error
    except LookupError as error:
        raise EpochalError(
            f"{path}: {said(error)}", "data.params.encoding is one that Python knows, as utf-8"
        ) from error


def _encoding(path: Path, data: bytes) -> str:
    """UTF-8, or what a byte order mark says. Nothing is guessed: the guesses differ in every letter that matters."""
    for beginning, (found, hint) in NO_TEXT.items():
        if data.startswith(beginning):
            raise EpochalError(f"{path}: found {found}, expected text", hint)
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding
    if b"\0" in data:
        hint = "is it text? of UTF-16 without a byte order mark, data.params.encoding: utf-16"
        raise EpochalError(f"{path} (byte {data.index(0):,}): found a zero byte, expected text", hint)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        start, end = data.rfind(b"\n", 0, error.start) + 1, data.find(b"\n", error.start)
        number = 1 + data.count(b"\n", 0, error.start)
        line = data[start : end if end >= 0 else None].decode("cp1252", errors="replace").strip()[:80]
        raise EpochalError(
            f"{path} (line {number}): found {data[error.start : error.end]!r}, expected text in UTF-8",
            f"save it as UTF-8, or set data.params.encoding; as cp1252 (Windows, western) the line reads {line!r}",
        ) from error
    return "utf-8"
