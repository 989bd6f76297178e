"""A table's file as columns of numbers or text, by the readers and casts of pyarrow."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epochal.catalog.datasets.encoding import decoded
from epochal.catalog.datasets.files import reading
from epochal.errors import EpochalError, did_you_mean, some

MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
)
"""What pandas takes for a missing value."""
MISSING_NUMBER = ("?", "-", "--", ".", "..")
"""Missing values too, but not in a target of text: ``+`` and ``-`` are classes somewhere."""
DATES = "dates, each a category: a number, such as the days since the first, would keep their order"
LOOKS = {
    DATES: r"^(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})([ T].*)?$",
    "numbers with a unit, each a category: take the unit off to have numbers": r"^[+-]?\d[\d.,]*\s*\p{L}{1,5}$",
}
"""What a column of text may be meant for, and how it looks then."""
DELIMITERS = (",", ";", "\t", "|")
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
SEPARATOR_LINE = re.compile(r'"?sep=([\t -~])"?(?:\r\n?|\n)')
"""With which Excel is told of the delimiter."""
PANDAS_INDEX = re.compile(r"__index_level_\d+__")
BLOCK_BYTES = 64 << 20
"""What pyarrow reads at a time, and so the longest row."""


@dataclass(frozen=True)
class TableFormat:
    """How to read a table of text; None is for what is to be detected."""

    delimiter: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    missing: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Column:
    """``values`` are float64 (missing: NaN), int64, uint64, bool, or objects: text (missing: None)."""

    values: NDArray[Any]
    note: str = ""

    @property
    def is_text(self) -> bool:
        return self.values.dtype == object

    @property
    def missing(self) -> NDArray[Any]:
        """Indices of the rows without a value."""
        return np.flatnonzero([value is None for value in self.values] if self.is_text else np.isnan(self.values))


@dataclass(frozen=True)
class Table:
    """A file's cells, not yet taken for anything. ``first_row`` is the number that a viewer shows for the first."""

    path: Path
    cells: Any
    format: TableFormat
    first_row: int
    note: str

    def named(self, name: str) -> Any:
        """The cells of a column.

        Raises:
            EpochalError: there is none of that name.
        """
        names = self.cells.column_names
        if name not in names:
            shown = some([repr(one) for one in names], 20)
            hint = did_you_mean(name, tuple(names))
            if not hint.startswith("did you mean"):  # what it has is said already
                hint = "are the columns' names in the first row? a wrong delimiter? data.params.delimiter sets it"
            raise EpochalError(f"{self.path} has no column {name!r}; it has {shown}", hint)
        return self.cells.column(name)

    def column(self, name: str, text: bool = False, mixed: bool = False, target: bool = False) -> Column:
        """The column ``name``, as text where ``text``, else as numbers where it holds numbers.

        A column of numbers with some other cells is refused, unless it may be ``mixed``: then it is text.

        Raises:
            EpochalError: it is refused, or its type is neither numbers nor text.
        """
        import pyarrow.types as kinds

        cells = self.named(name)
        if not (kinds.is_string(cells.type) or kinds.is_large_string(cells.type)):
            return _typed(self.path, name, cells, text)
        return self._read(name, cells, text, mixed, target)

    def rows(self, indices: Sequence[int] | NDArray[Any]) -> str:
        """``row 34, 128``, or the first few of many."""
        shown = ", ".join(str(self.first_row + int(index)) for index in indices[:5])
        more = f" and {len(indices) - 5:,} more" if len(indices) > 5 else ""
        return f"row{'s' if len(indices) > 1 else ''} {shown}{more}"

    def _read(self, name: str, cells: Any, text: bool, mixed: bool, target: bool) -> Column:
        import pyarrow as pa
        import pyarrow.compute as pc

        trimmed = pc.utf8_trim_whitespace(cells)
        given, decimals = self.format.missing, self.format.decimal or ".,"
        found = _without(trimmed, given if given is not None else (*MISSING, *MISSING_NUMBER))
        count = len(found) - found.null_count
        if not text:
            sign, plain = _without_sign(found)
            for decimal in decimals:
                if pc.all(_is_number(plain, decimal), min_count=0).as_py():
                    return _numbers(found, plain, sign, decimal)
            lower = pc.utf8_lower(found)
            if (
                count == len(found)
                and pc.all(pc.is_in(lower, value_set=pa.array(["true", "false"], cells.type))).as_py()
            ):
                return Column(np.asarray(pc.equal(lower, "true").to_numpy(zero_copy_only=False), dtype=bool))
            numbers = max((_is_number(plain, mark) for mark in decimals), key=_true)
            alike = max(_true(_is_number(_bare(found), mark)) for mark in decimals)
            if 2 * alike > count and not mixed:
                others = np.flatnonzero(pc.fill_null(pc.invert(numbers), False).to_numpy(zero_copy_only=False))
                shown = ", ".join(dict.fromkeys(repr(cells[int(index)].as_py())[:40] for index in others[:5]))
                raise EpochalError(
                    f"{self.path} (column {name!r}, {self.rows(others)}): found {shown}, expected a number"
                    f"{sign and f' with {sign}'}, as in {_true(numbers):,} of {count:,} cells",
                    f"mend the cells; or, if they are missing values, data.params.missing: [{shown}]; or, if the"
                    f" column holds categories, data.params.categories: [{name}]",
                )
        looks = [note for note, form in LOOKS.items() if pc.all(pc.match_substring_regex(found, form)).as_py()]
        note = looks[0] if looks and count else ""
        if target and given is None:
            found = _without(trimmed, MISSING)
        return Column(np.asarray(found.to_pylist(), dtype=object), note)


def read_table(path: Path, format: TableFormat, named: Sequence[str]) -> Table:
    """Read a file; ``named`` are columns that it should have, which tell its delimiter.

    Raises:
        EpochalError: it is not a table, or is empty.
    """
    with reading(path, "a table", "mend the file, or what data.params says of it: delimiter, encoding"):
        if path.suffix in {".parquet", ".pq"}:
            (cells, note), first_row = _parquet_table(path, named), 1
        else:
            cells, format, note = _text_table(path, format, named)
            first_row = 2
    names = cells.column_names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise EpochalError(
            f"{path} (row 1): found {', '.join(map(repr, twice))} as the name of more than one column, expected"
            " different names",
            "rename all but one of them",
        )
    if not cells.num_rows:
        raise EpochalError(f"{path} has no rows", "a table has its columns' names in the first row, and values below")
    return Table(path, cells, format, first_row, f"{cells.num_rows:,} rows, {note}")


def _text_table(path: Path, format: TableFormat, named: Sequence[str]) -> tuple[Any, TableFormat, str]:
    """Every cell as text: what the columns hold is told by all their cells, not by the first."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    with path.open("rb") as file:
        data = pa.input_stream(file, compression=COMPRESSIONS.get(path.suffix)).read()
    text, encoding = decoded(path, data, format.encoding)
    told = SEPARATOR_LINE.match(text)
    start = told.end() if told else 0
    first = text[start : start + (1 << 20)]
    delimiter = format.delimiter or (told[1] if told else None)
    if delimiter is None:  # the one by which the header has the most of the columns that the spec names
        delimiter = max(DELIMITERS, key=lambda mark: len({*named} & {name.strip() for name in _header(first, mark)}))
    header = _header(first, delimiter)
    cells = arrow_csv.read_csv(
        io.BytesIO(data[start:] if encoding == "utf-8" else text[start:].encode()),
        # In one thread it can tell the row that it cannot read.
        read_options=arrow_csv.ReadOptions(use_threads=False, block_size=min(max(len(data), 1 << 20), BLOCK_BYTES)),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), null_values=[]),
    )
    if cells.num_rows and "\n" in cells.column(cells.num_columns - 1)[-1].as_py() and text.count('"') % 2:
        raise EpochalError(
            f"{path} (row {cells.num_rows + 1}): found a quotation mark that is never closed, expected as many as open",
            "mend the row; all that follows was taken for the text of its last cell",
        )
    cells, left_out = _named_or_filled(cells)
    decimal = format.decimal or _decimal(cells, delimiter)
    note = f"delimiter {delimiter!r}, encoding {encoding}, decimal {decimal!r}{left_out}"
    decimals = format.decimal or f"{decimal}{'.' if decimal == ',' else ','}"
    return cells, TableFormat(delimiter, encoding, decimals, format.missing), note


def _named_or_filled(cells: Any) -> tuple[Any, str]:
    """Without the columns that have neither a name nor a value, as where each row ends with a delimiter; and a word."""
    import pyarrow.compute as pc

    cells = cells.rename_columns([name.strip() for name in cells.column_names])
    kept = [
        index
        for index, name in enumerate(cells.column_names)
        if name or not pc.all(pc.equal(pc.utf8_trim_whitespace(cells.column(index)), ""), min_count=0).as_py()
    ]
    count = cells.num_columns - len(kept)
    word = f", {count} column{'s' if count > 1 else ''} without name and values left out" if count else ""
    return cells.select(kept), word


def _parquet_table(path: Path, named: Sequence[str]) -> tuple[Any, str]:
    """Categories as their values, and without the index of pandas, unless it is ``named``; and a word."""
    import pyarrow as pa
    from pyarrow import parquet

    cells = parquet.read_table(path)
    for index, field in enumerate(cells.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        kind = pa.string() if pa.types.is_string_view(kind) else kind
        if kind != field.type:
            cells = cells.set_column(index, field.name, cells.column(index).cast(kind))
    unasked = [name for name in cells.column_names if PANDAS_INDEX.fullmatch(name) and name not in named]
    return cells.drop_columns(unasked), "parquet, the index of pandas left out" if unasked else "parquet"


def _header(text: str, delimiter: str) -> list[str]:
    lines = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter)
    return next((row for row in lines if row), [])


def _decimal(cells: Any, delimiter: str) -> str:
    """The decimal mark of the columns that can be read by one mark alone; ``1,037`` alone tells nothing."""
    import pyarrow.compute as pc

    comma = dot = comma_perhaps = False
    for name in cells.column_names if len(set(cells.column_names)) == len(cells.column_names) else ():
        trimmed = pc.utf8_trim_whitespace(cells.column(name).slice(0, 10_000))
        found = _without(trimmed, (*MISSING, *MISSING_NUMBER))
        _, plain = _without_sign(found)
        by_dot, by_comma = (pc.all(_is_number(plain, mark), min_count=0).as_py() for mark in ".,")
        dot |= by_dot and not by_comma
        comma |= by_comma and not by_dot
        comma_perhaps |= by_comma and bool(pc.any(pc.match_substring(found, ",")).as_py())
    return "," if not dot and (comma or (comma_perhaps and delimiter == ";")) else "."


def _without(trimmed: Any, marks: Sequence[str]) -> Any:
    """The cells, those that are one of the ``marks`` null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.if_else(pc.is_in(trimmed, value_set=pa.array(marks, trimmed.type)), None, trimmed)


_SIGNS = r"%‰\p{Sc}"  # of all currencies


def _without_sign(cells: Any) -> tuple[str, Any]:
    """The sign that most numbers have, such as ``%`` or ``$`` (none: empty), and the cells without it. Those with
    another one, or with none beside some that have one, are empty then: they count something else.
    """
    import pyarrow.compute as pc

    if not pc.any(pc.match_substring_regex(cells, f"[{_SIGNS}]")).as_py():
        return "", cells
    signs = pc.replace_substring_regex(cells, f"[^{_SIGNS}]", "")
    counts = signs.filter(pc.match_substring_regex(cells, r"\d")).value_counts().to_pylist()
    sign = max(counts, key=lambda one: one["counts"], default={"values": ""})["values"]
    if len(sign) != 1:
        return "", cells
    return sign, pc.if_else(pc.equal(signs, sign), _bare(cells, rf"\x{{{ord(sign):x}}}"), "")


def _bare(cells: Any, sign: str = f"[{_SIGNS}]") -> Any:
    import pyarrow.compute as pc

    space = r"[\s\x{a0}\x{202f}]*"
    return pc.replace_substring_regex(cells, rf"^([+-]?){space}{sign}{space}|{space}{sign}$", r"\1")


def _is_number(cells: Any, decimal: str) -> Any:
    import pyarrow.compute as pc

    point, group = (r"\.", ",") if decimal == "." else (",", r"\.")
    digits = rf"(\d+|[1-9]\d{{0,2}}([{group}' \x{{a0}}\x{{202f}}]\d{{3}})+)({point}\d*)?|{point}\d+"
    return pc.match_substring_regex(cells, rf"^[+-]?({digits})([eE][+-]?\d+)?$")


def _true(values: Any) -> int:
    import pyarrow.compute as pc

    return int(pc.sum(values).as_py() or 0)


def _numbers(cells: Any, unsigned: Any, sign: str, decimal: str) -> Column:
    """Cells that are all numbers: int64 where they are whole, fit, none is missing and none has a sign, which is that
    of a quantity. ``unsigned`` are the cells without it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = pc.replace_substring_regex(unsigned, r"^\+|[' \x{a0}\x{202f}" + ("," if decimal == "." else ".") + "]", "")
    plain = pc.replace_substring(plain, decimal, ".")
    changed = pc.not_equal(pc.replace_substring_regex(cells, r"^\+", ""), plain)
    numbers = plain.cast(pa.float64())
    note = ""
    if pc.any(changed).as_py():
        index = pc.index(changed, True).as_py()
        note = f"{cells[index].as_py()!r} read as {numbers[index].as_py():.15g}"
    elif pc.any(coded := pc.match_substring_regex(cells, r"^0\d+$")).as_py():
        code = cells[pc.index(coded, True).as_py()].as_py()
        note = f"{code!r} read as {int(code)}: if these are codes, data.params.categories"
    if not sign and not cells.null_count and pc.all(pc.match_substring_regex(plain, r"^-?\d{1,19}$")).as_py():
        with suppress(pa.ArrowInvalid):  # of 19 digits not all fit
            return Column(np.asarray(plain.cast(pa.int64()).to_numpy(), dtype=np.int64), note)
    return Column(np.asarray(numbers.to_numpy(), dtype=np.float64), note)


def _typed(path: Path, name: str, cells: Any, text: bool) -> Column:
    """A column of a file that knows its types."""
    import pyarrow.types as kinds

    kind = cells.type
    if kinds.is_nested(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind):
        hint = f"data.params.exclude: [{name}]"
        raise EpochalError(f"{path} (column {name!r}): found {kind}, expected numbers or text", hint)
    if not text:
        if kinds.is_boolean(kind) and not cells.null_count:
            return Column(np.asarray(cells.to_numpy(), dtype=bool))
        if kinds.is_integer(kind) and not cells.null_count:
            return Column(np.asarray(cells.to_numpy(), dtype=np.uint64 if kind == "uint64" else np.int64))
        if kinds.is_floating(kind) or kinds.is_integer(kind) or kinds.is_decimal(kind) or kinds.is_null(kind):
            return Column(np.asarray(cells.cast("float64", safe=False).to_numpy(), dtype=np.float64))
    values = [None if value in (None, "") else str(value) for value in cells.to_pylist()]
    return Column(np.asarray(values, dtype=object), DATES if kinds.is_temporal(kind) else "")
