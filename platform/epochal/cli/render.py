"""Everything Epochal prints: data on stdout, the rest on stderr; plain where nobody watches.

Rich is imported only to draw on a terminal, PyYAML only to print YAML.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from enum import StrEnum
from typing import IO, TYPE_CHECKING, Any

from epochal.cli.table import STANDARD_OUTPUT
from epochal.terminal import aligned

if TYPE_CHECKING:
    from epochal.errors import EpochalError, Problem, SpecError

_ROWS_BELOW = 8


class Output(StrEnum):
    """The formats of ``-o``."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


_DATA: ContextVar[IO[str] | None] = ContextVar("data", default=None)
"""Where data goes while ``sys.stdout`` is not ours."""


def records(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    output: Output = Output.TABLE,
    title: str = "",
    spare: Sequence[str] = (),
) -> None:
    """Print ``rows``.

    A table shows ``columns``, json and yaml every key of every row, name the first column alone. ``title`` says what
    is listed, in the plural (``"runs"``): it heads the table on a terminal, and is missed aloud where there is none.
    On a terminal that is too narrow columns of ``spare`` are left out, the first of them first.
    """
    if output in (Output.JSON, Output.YAML):
        _structured(list(rows), output)
    elif output is Output.NAME:
        _lines(_out(), (_cell(row.get(columns[0])) for row in rows))
    elif not rows:
        message(f"no {title or 'rows'}")
    elif is_terminal(_out()):
        _rich_table(rows, columns, title, spare)
    else:
        cells = ([_cell(row.get(name)) for name in columns] for row in rows)
        _lines(_out(), aligned([[_header(name) for name in columns], *cells]))


def document(mapping: Mapping[str, Any], output: Output = Output.TABLE) -> None:
    """Print one thing: ``key  value`` lines with nested keys dotted, json, yaml, or its first value as its name."""
    if output in (Output.JSON, Output.YAML):
        _structured(mapping, output)
    elif output is Output.NAME:
        _lines(_out(), [_cell(next(iter(mapping.values()), ""))])
    else:
        pairs = [[_cell(key), _cell(value)] for key, value in _flat(mapping)]
        shown = [[_styled(key, "1", _out()), value] for key, value in pairs] if is_terminal(_out()) else pairs
        _lines(_out(), aligned(shown))


def text(content: str) -> None:
    """Print ``content`` on stdout as it is, with a newline after it."""
    _lines(_out(), [content.removesuffix("\n")])


def part(shown: int, total: int, rest: str, what: str = "") -> None:
    """Say, where not everything is shown, how much there is and what shows the rest."""
    if shown < total:
        message(f"{shown:,} of {total:,} {what}{' ' if what else ''}are shown; the rest: {rest}")


def line(mapping: Mapping[str, Any]) -> None:
    """Print one object as JSON on one line: what a program reads while more is to come."""
    text(json.dumps(plain(mapping), ensure_ascii=False))


@contextmanager
def apart() -> Iterator[None]:
    """Within the block standard output is this module's alone. What else is printed goes to standard error: also what
    goes to file descriptor 1, which C code and child processes write to, and what is printed as the process ends.
    """
    stdout = sys.stdout
    stdout.flush()
    with open(os.dup(1), "w", encoding=stdout.encoding, errors=stdout.errors) as kept:
        token = _DATA.set(kept if stdout is sys.__stdout__ else stdout)  # a test's, or a caller's, is no descriptor
        os.dup2(2, 1)
        sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        try:
            yield
        finally:
            for stream in (sys.stdout, stdout):
                with suppress(Exception):  # the block's code may have put anything in its place
                    stream.flush()
            sys.stdout = stdout
            os.dup2(kept.fileno(), 1)
            _DATA.reset(token)
            atexit.register(os.dup2, 2, 1)  # called before what the block's code has registered


def draws() -> bool:
    """Whether data goes to a terminal, where it can be drawn over."""
    return is_terminal(_out())


def clear() -> None:
    """Begin again at the top of an empty terminal; nothing where stdout is none."""
    if draws():
        _out().write("\x1b[H\x1b[2J\x1b[3J")


class Below:
    """A few lines at the end of what a terminal shows, drawn anew again and again. Between ``erase`` and ``draw`` other
    lines are printed, which then stand above them."""

    def __init__(self) -> None:
        self._rows = 0

    def erase(self) -> None:
        if self._rows:
            up = f"\x1b[{self._rows - 1}A" if self._rows > 1 else ""
            sys.stdout.write(f"\r{up}\x1b[J")
        self._rows = 0

    def draw(self, lines: Sequence[str]) -> None:
        """Of many lines the last, and how many there are more; of a long one its beginning."""
        from rich.cells import set_cell_size

        width, shown = shutil.get_terminal_size().columns - 1, list(lines[-_ROWS_BELOW:])
        if len(lines) > _ROWS_BELOW:
            shown.insert(0, f"... {len(lines) - _ROWS_BELOW:,} more above")
        sys.stdout.write("\n".join(set_cell_size(line[:width], width).rstrip() for line in shown))
        sys.stdout.flush()
        self._rows = len(shown)


def message(content: str) -> None:
    """Tell the user something that is not the command's data."""
    _lines(sys.stderr, [printable(content)])


def warning(content: str) -> None:
    _lines(sys.stderr, [f"{_styled('warning:', '33', sys.stderr)} {printable(content)}"])


def error(failure: EpochalError, output: Output = Output.TABLE) -> None:
    """Print an expected error on stderr: what happened, every problem of a spec, and what to do next."""
    # By what they have, as `SpecError` is not imported: the help prints by this module too, and has to appear at once.
    found: tuple[Problem, ...] = getattr(failure, "problems", ())
    if output is Output.JSON:
        _lines(sys.stderr, [json.dumps({"error": _error_fields(failure, found)}, ensure_ascii=False)])
        return
    _lines(sys.stderr, [f"{_styled('error:', '31', sys.stderr)} {printable(failure.message)}"])
    source = getattr(failure, "source", "")
    _lines(sys.stderr, (printable(problem_line(source, problem)) for problem in found))
    if failure.hint:
        _lines(sys.stderr, [f"{_styled('hint:', '36', sys.stderr)} {printable(failure.hint)}"])


def problems(failure: SpecError, content: str) -> None:
    """Print a spec's problems on stderr, one a line; a terminal also shows the line of ``content`` that each is in."""
    lines = content.splitlines()
    drawn = is_terminal(sys.stderr)
    for problem in failure.problems:
        _lines(sys.stderr, [printable(problem_line(failure.source, problem))])
        if drawn and problem.line is not None and problem.column is not None and problem.line <= len(lines):
            _lines(sys.stderr, _excerpt(lines[problem.line - 1], problem.line, problem.column))


def problem_line(source: str, problem: Problem) -> str:
    """One problem as compilers print it: ``file:line:column: path: message (hint)``."""
    place = ":".join(str(one) for one in (source, problem.line, problem.column) if one is not None)
    where = place if problem.line is not None else problem.origin or source
    parts = [part for part in (where, problem.path, problem.message) if part]
    hint = f" ({problem.hint})" if problem.hint else ""
    return f"{': '.join(parts)}{hint}"


def is_terminal(stream: IO[str]) -> bool:
    """Whether to draw for a person: a terminal that is not dumb."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def printable(content: str) -> str:
    """``content`` without control characters but newline and tab.

    Names come from files and servers, and a terminal would obey the escapes in them.
    """
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in content)


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: NaN and infinities as text, anything unknown as its ``str``."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    # Exactly of these types: a member of an enum, which is text or a number too, goes as its `str`.
    finite = isinstance(value, float) and math.isfinite(value)
    return value if finite or value is None or type(value) in (bool, int, str) else str(value)


def _out() -> IO[str]:
    return _DATA.get() or sys.stdout


def _excerpt(line: str, number: int, column: int, width: int = 100) -> list[str]:
    """The source line and a caret below ``column``; of a long line the part around it."""
    start = max(0, column - width // 2) if len(line) > width else 0
    shown = printable(line[start : start + width].replace("\t", " "))  # one column wide, as the caret counts
    caret = " " * (column - 1 - start) + _styled("^", "31", sys.stderr)
    return [f"{number:>5} | {shown}", f"{'':>5} | {caret}"]


def _structured(value: Any, output: Output) -> None:
    if output is Output.JSON:
        text(json.dumps(plain(value), indent=2, ensure_ascii=False))
        return
    import yaml

    text(yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True, width=120))


def _error_fields(failure: EpochalError, found: tuple[Problem, ...]) -> dict[str, Any]:
    fields = {"type": type(failure).__name__, "message": failure.message, "hint": failure.hint}
    if not found:
        return fields
    from dataclasses import asdict

    return {**fields, "problems": [plain(asdict(problem)) for problem in found]}


def _header(column: str) -> str:
    return column.upper().replace("_", " ")


def _cell(value: Any) -> str:
    """A value on one line of a table."""
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    simple = plain(value)
    shown = simple if isinstance(simple, str) else json.dumps(simple, ensure_ascii=False)
    return " ".join(printable(shown).split())


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _rich_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str, spare: Sequence[str]) -> None:
    from rich.console import Console

    from epochal.cli.terminal_table import drawn

    console = Console(file=_out())
    numbers = [name for name in columns[1:] if all(type(row.get(name)) in (int, float, type(None)) for row in rows)]
    cells = {name: [_header(name), *(_cell(row.get(name)) for row in rows)] for name in columns}
    table, left_out = drawn(cells, console.width, numbers, spare)
    table.title = title or None
    console.print(table)
    if left_out:
        message(f"no room for {', '.join(left_out)}: a wider terminal shows more, and -o json everything")


def _styled(content: str, code: str, stream: IO[str]) -> str:
    if not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return content
    return f"\x1b[{code}m{content}\x1b[0m"


def _lines(stream: IO[str], lines: Iterator[str] | Sequence[str]) -> None:
    """What cannot be said on standard error must not stop what is going on: there is nobody to tell."""
    try:
        for line in lines:
            stream.write(f"{line}\n")
        stream.flush()
    except OSError as error:
        if stream is not sys.stderr:
            error.filename = STANDARD_OUTPUT
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
