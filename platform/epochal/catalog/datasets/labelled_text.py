"""Texts with a class each: a folder of yours for each class, or what the standard library's packages document."""

from __future__ import annotations

import ast
import json
import re
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field as Bounds
from torch import Tensor

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.files import ending, existing, reading
from epochal.catalog.datasets.in_memory import Arrays, PartitionParams, loaded, three_parts
from epochal.catalog.datasets.text import SUFFIXES
from epochal.catalog.entry import Dataset
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError

PADDING, UNKNOWN = 0, 1
PACKAGES = ("asyncio", "email", "importlib", "logging", "xml")
"""Of the standard library: those with many docstrings, which every installation has."""

_UNITS = {"word": re.compile(r"[^\W_]+|[^\w\s]"), "character": re.compile(r".", re.DOTALL)}


class LabelledTextParams(PartitionParams):
    path: Annotated[str, Bounds(min_length=1)] | None = None
    """A folder with a folder for each class, which holds a text file in UTF-8 for each sample. null: the docstrings of
    some packages of Python's standard library, to be told apart."""
    unit: Literal["word", "character"] = "word"
    """What a token is: a word or punctuation mark in lower case, or a character."""
    length: Annotated[int, Bounds(ge=1, le=1_000_000)] = 48
    """Tokens of a sample: longer texts are cut, shorter ones filled up with the token 0."""
    vocabulary: Annotated[int, Bounds(ge=3)] = 2000
    """Tokens that are told apart: 0 is padding, 1 stands for the unknown, and the others are the most common ones of
    the training texts."""


def build(params: LabelledTextParams, folder: Path) -> LoadedData:
    """input: (length,) token ids; target: the class.

    Raises:
        EpochalError: a file is no text, or there are less than two classes with texts.
    """
    source, texts = documented() if params.path is None else _of_folder(existing(params.path, folder))
    classes = sorted({name for name, _ in texts})
    if len(classes) < 2:
        found = f"texts of one class, {classes[0]}" if classes else "no texts"
        raise EpochalError(f"{source} has {found}", f"give a folder for each class; files end in {', '.join(SUFFIXES)}")
    unit = _UNITS[params.unit]
    tokens = [unit.findall(text.lower() if params.unit == "word" else text) for _, text in texts]
    target = torch.tensor([classes.index(name) for name, _ in texts])
    train, validation, test = three_parts(len(texts), params, target)
    known = _vocabulary((tokens[index] for index in train.tolist()), params.vocabulary)
    arrays = Arrays(_numbers(tokens, known, params.length), target, len(classes))
    cut = sum(len(one) > params.length for one in tokens)
    note = f"{len(texts):,} texts, {cut:,} of them cut after {params.length} {params.unit}s"
    data = loaded(
        arrays.at(train),
        *(arrays.at(part) if len(part) else None for part in (validation, test)),
        source=source,
        digest=sha256(json.dumps(texts).encode()).hexdigest(),  # the tokens depend on which texts are trained on
        vocabulary=len(known) + 2,
    )
    understood = (Understood(source, f"token ids of {len(known) + 2:,} kinds", note=note),)
    return replace(data, understood=understood, classes=tuple(classes))


def _of_folder(folder: Path) -> tuple[str, Sequence[tuple[str, str]]]:
    found = []
    for file in ending(folder, SUFFIXES):
        parts = file.relative_to(folder).parts
        if len(parts) > 1:
            with reading(file, "text in UTF-8", "convert it: iconv -f FROM -t UTF-8"):
                found.append((parts[0], file.read_text(encoding="utf-8")))
    return str(folder), found


@cache
def documented() -> tuple[str, tuple[tuple[str, str], ...]]:
    """What it is, and each of them with its package; parsed once, for half a second."""
    library = Path(sysconfig.get_path("stdlib"))
    found = tuple((package, text) for package in PACKAGES for text in _docstrings(library / package))
    return f"docstrings of Python's {', '.join(PACKAGES)}", found


def _docstrings(package: Path) -> Iterator[str]:
    """Those of some length, each once, without the package's own name."""
    known = set[str]()
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = re.sub(package.name, " ", ast.get_docstring(node) or "", flags=re.IGNORECASE)
                if len(text) >= 40 and text not in known:
                    known.add(text)
                    yield text


def _vocabulary(texts: Iterable[list[str]], size: int) -> dict[str, int]:
    """The number of each of the most common tokens, from 2; of equally common ones in the order of the alphabet."""
    counts = Counter(token for text in texts for token in text)
    most = sorted(counts, key=lambda token: (-counts[token], token))[: size - 2]
    return {token: number for number, token in enumerate(most, start=2)}


def _numbers(texts: list[list[str]], known: dict[str, int], length: int) -> Tensor:
    """(texts, length)."""
    numbers = torch.full((len(texts), length), PADDING)
    for row, text in enumerate(texts):
        taken = [known.get(token, UNKNOWN) for token in text[:length]]
        numbers[row, : len(taken)] = torch.tensor(taken, dtype=torch.int64)
    return numbers


ENTRY = Dataset(
    summary="Texts with a class each, as words or characters: your folders, or docstrings of the standard library",
    source="https://docs.python.org/3/library/",
    params=LabelledTextParams,
    build=build,
    task="classification",
)
