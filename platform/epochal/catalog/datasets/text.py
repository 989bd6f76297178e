"""Text as sequences of characters or bytes, and the one after each of them: a file of yours, or Python's own manual."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field as Bounds
from torch import Tensor

from epochal.catalog.data import LoadedData
from epochal.catalog.datasets.files import ending, existing, reading
from epochal.catalog.datasets.in_memory import Arrays, PartitionParams, digest_of, held_out, loaded
from epochal.catalog.entry import Dataset
from epochal.catalog.understood import Understood
from epochal.errors import EpochalError

SUFFIXES = (".txt", ".md", ".rst", ".py", ".tex", ".html", ".csv", ".json", ".log")


class TextParams(PartitionParams):
    path: Annotated[str, Bounds(min_length=1)] | None = None
    """A text file in UTF-8, or a folder of such; relative to the spec's folder. null: the manual that Python has."""
    unit: Literal["character", "byte"] = "character"
    """What a token is: each character that occurs, or a byte."""
    length: Annotated[int, Bounds(ge=1, le=1_000_000)] = 64
    """Tokens of a sequence. Sequences follow each other in the text without an overlap."""


def build(params: TextParams, folder: Path) -> LoadedData:
    """input: (length,) token ids; target: (length,), the tokens that follow them."""
    source, text = _read(params, folder)
    tokens, vocabulary = _tokens(text, params.unit)
    count = (len(tokens) - 1) // params.length
    if count < 2:
        told = f"{source} has {len(tokens):,} tokens: too few for two sequences of {params.length} and what follows"
        raise EpochalError(told, "give a longer text, or a smaller length")
    used = count * params.length
    arrays = Arrays(
        tokens[:used].reshape(count, params.length), tokens[1 : used + 1].reshape(count, params.length), len(vocabulary)
    )
    left = len(tokens) - 1 - used
    note = f"{count:,} sequences of {params.length}" + (f"; the last {left} are left out" if left else "")
    understood = (Understood(source, f"{len(tokens):,} tokens of {len(vocabulary)} kinds", note=note),)
    digest = digest_of({"tokens": tokens})
    data = loaded(*held_out(arrays, params), source=source, digest=digest, vocabulary=len(vocabulary))
    return replace(data, understood=understood, classes=vocabulary)


def _read(params: TextParams, folder: Path) -> tuple[str, str]:
    if params.path is None:
        from pydoc_data.topics import topics

        return "the topics of Python's pydoc", "\n\n".join(topics[name] for name in sorted(topics))
    path = existing(params.path, folder)
    files = [path] if path.is_file() else ending(path, SUFFIXES)
    if not files:
        raise EpochalError(f"{path} holds no text: no file ends in {', '.join(SUFFIXES)}")
    parts = []
    for file in files:
        with reading(file, "text in UTF-8", "convert it: iconv -f FROM -t UTF-8"):
            parts.append(file.read_text(encoding="utf-8"))
    return str(path), "\n".join(parts)


def _tokens(text: str, unit: str) -> tuple[Tensor, tuple[str, ...]]:
    """Their numbers (tokens,), and the vocabulary."""
    if unit == "byte":
        values = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)
        return torch.from_numpy(values), tuple(f"0x{byte:02x}" for byte in range(256))
    known = {character: number for number, character in enumerate(sorted(Counter(text)))}
    numbers = np.fromiter((known[character] for character in text), dtype=np.int64, count=len(text))
    return torch.from_numpy(numbers), tuple(known)


ENTRY = Dataset(
    summary="Characters or bytes of a text, each with the one that follows; by default of Python's own manual",
    source="https://docs.python.org/3/library/pydoc.html",
    params=TextParams,
    build=build,
    task="language-modelling",
)
