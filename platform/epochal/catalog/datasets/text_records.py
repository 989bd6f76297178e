"""Texts that are records by themselves, of differing length: lines of files, or docstrings of the standard library.

Several of them share a row of tokens, so that little of it is padding (Krell et al. 2021, Efficient sequence packing
without cross-contamination, https://arxiv.org/abs/2107.02027).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field as Bounds

from epochal.catalog.data import DataInfo, Field, LoadedData
from epochal.catalog.datasets.files import existing, reading
from epochal.catalog.datasets.in_memory import Arrays, PartitionParams, loaded, three_parts
from epochal.catalog.datasets.labelled_text import documented
from epochal.catalog.entry import Dataset
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError
from epochal.redaction import said

END = "\N{SYMBOL FOR END OF TEXT}"
"""The token after each record, as which it is shown."""


class TextRecordsParams(PartitionParams):
    path: Annotated[str, Bounds(min_length=1)] | None = None
    """A file in UTF-8 with a record in each line: text, or JSON where its name ends in `.jsonl`; relative to the spec's
    folder. null: docstrings of Python's standard library."""
    field: Annotated[str, Bounds(min_length=1)] = "text"
    """Of a JSON record, where its text is."""
    length: Annotated[int, Bounds(ge=2, le=1_000_000)] = 256
    """Tokens (characters) of a row. A longer record is cut into several."""
    pack: bool = True
    """Put several records into a row, as many as fit. No token attends to another record's, and positions begin anew
    with each, so that the loss of a token is the same as with a row for each record; a batch has more tokens."""


def build(params: TextRecordsParams, folder: Path) -> LoadedData:
    """input: (length,) token ids; target: (length,), the tokens that follow them; record: (length,), the number of the
    record in its row that a token is of, from 1, and 0 for padding.

    Raises:
        EpochalError: a line is no record, or there are less than two.
    """
    source, texts = _read(params, folder)
    if len(texts) < 2:
        raise EpochalError(f"{source} has {len(texts)} records with text", "give a line for each record")
    names = (*sorted(set().union(*texts)), END)
    known = {name: number for number, name in enumerate(names)}
    records = [[*(known[one] for one in text), len(known) - 1] for text in texts]
    notes, made = list[str](), list[Arrays | None]()
    for part in three_parts(len(records), params, None):
        pieces = [piece for index in part.tolist() for piece in _pieces(records[index], params.length)]
        rows = packed([len(piece) - 1 for piece in pieces], params.length if params.pack else 0)
        made.append(_arrays(pieces, rows, params.length, len(names)) if pieces else None)
        if not notes:
            cut = sum(len(one) - 1 > params.length for one in records)
            notes.append(f"{len(records):,} records, {cut:,} of them cut into rows of {params.length}")
            notes.append(_padding(pieces, len(rows), params.length))
    train, *held = made
    assert train is not None
    digest = sha256(json.dumps([params.length, params.pack, texts]).encode()).hexdigest()
    data = loaded(train, *held, source=source, digest=digest, vocabulary=len(names))
    record = Field((params.length,), torch.int64, params.length + 1)
    info = DataInfo(data.info.input, data.info.target, {"record": record}, ("input", "record"))
    understood = (Understood(source, f"characters of {len(names)} kinds", note="; ".join(notes)),)
    return replace(data, info=info, understood=understood, classes=names)


def _read(params: TextRecordsParams, folder: Path) -> tuple[str, list[str]]:
    if params.path is None:
        source, texts = documented()
        return source, [text for _, text in texts]
    path = existing(params.path, folder)
    with reading(path, "text in UTF-8", "convert it: iconv -f FROM -t UTF-8"):
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: JSON may hold, say, U+2028 as it is
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if path.suffix.lower() == ".jsonl":
        return str(path), [text for number, line in numbered if (text := _text(path, number, line, params.field))]
    return str(path), [line for _, line in numbered]


def _text(path: Path, number: int, line: str, field: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise EpochalError(f"{path} (line {number}): {said(error)}", "each line is a JSON object") from error
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        found = f"the fields {', '.join(record)}" if isinstance(record, dict) else type(record).__name__
        told = f"{path} (line {number}): expected a text in the field {field!r}, found {found}"
        raise EpochalError(told, "set data.params.field")
    return text


def _pieces(record: list[int], length: int) -> Iterator[list[int]]:
    """Of at most ``length`` tokens and the one that follows; the last token of one is the first of the next."""
    for first in range(0, len(record) - 1, length):
        yield record[first : first + length + 1]


def packed(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Rows of places in ``sizes``, whose sum is at most ``room``: each, from the largest down, goes where it leaves the
    least (best fit decreasing). With no room at all each has a row of its own.
    """
    rows = list[list[int]]()
    left: dict[int, list[int]] = {}  # rows by what room they have
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        size = sizes[index]
        fitting = next((free for free in range(size, room) if left.get(free)), None)
        row = left[fitting].pop() if fitting is not None else len(rows)
        if fitting is None:
            rows.append([])
        rows[row].append(index)
        left.setdefault((room if fitting is None else fitting) - size, []).append(row)
    return rows


def _arrays(pieces: list[list[int]], rows: list[list[int]], length: int, vocabulary: int) -> Arrays:
    input, target, record = (torch.zeros((len(rows), length), dtype=torch.int64) for _ in range(3))
    for row, places in enumerate(rows):
        end = 0
        for number, piece in enumerate((torch.tensor(pieces[place]) for place in places), start=1):
            begin, end = end, end + len(piece) - 1
            input[row, begin:end], target[row, begin:end], record[row, begin:end] = piece[:-1], piece[1:], number
    return Arrays(input, target, vocabulary, {"record": record})


def _padding(pieces: list[list[int]], rows: int, length: int) -> str:
    tokens = sum(len(piece) - 1 for piece in pieces)
    shares = [f"{1 - tokens / (count * length):.1%} in {count:,} rows" for count in dict.fromkeys((len(pieces), rows))]
    packed = f", packed {shares[1]}" if len(shares) > 1 else ""
    return f"of the tokens to train on padding is {shares[0]}, one for each{packed}"


ENTRY = Dataset(
    summary="Texts of differing length, several in a row that keep to themselves: lines, JSON lines, or docstrings",
    source="Krell et al. 2021, Efficient sequence packing without cross-contamination, https://arxiv.org/abs/2107.02027",
    params=TextRecordsParams,
    build=build,
    task="language-modelling",
)
