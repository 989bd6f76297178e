"""YAML text to a tree of plain values with places, under limits that hold before anything is expanded.

The dialect is YAML 1.2's core schema (which JSON is part of) read by PyYAML's parser: only ``true`` and ``false`` are
booleans, ``1e-3`` is a number, dates are text, and no tag makes an object. Merge keys (``<<``) are understood.
"""

from __future__ import annotations

import codecs
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, NoReturn

import yaml

from epochal.errors import Problem, SpecError
from epochal.redaction import said
from epochal.spec.tree import SET, Node, Path, Place, dotted

MAX_BYTES = 2**20
MAX_DEPTH = 32
MAX_NODES = 20_000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where PyYAML was built with it: many times faster
_WORDS = {"": None, "~": None, **dict.fromkeys(("null", "Null", "NULL"), None)}
_WORDS |= {word: word[0] in "tT" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_INT = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*")
_BASED_INT = re.compile(r"0x[0-9a-fA-F]{1,16}|0o[0-7]{1,21}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NUMBERS: tuple[tuple[re.Pattern[str], Callable[[str], int | float]], ...] = (
    (_INT, int),
    (_FLOAT, float),
    (_BASED_INT, lambda text: int(text, 0)),
    (_NOT_FINITE, lambda text: float(text.replace(".", ""))),
)
_LONGEST_NUMBER = 40  # int() refuses thousands of digits; no field takes so long a number
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
"""A character beyond 16 bits as JSON escapes it, which YAML's parser does not know."""
_PLAIN_TAGS = {None, "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


def read(source: str | FilePath) -> bytes:
    """The bytes of a spec file, or of standard input for ``-``; at most one more than ``MAX_BYTES``.

    Raises:
        SpecError: it cannot be read.
    """
    if source == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        with open(source, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else said(error)
        raise SpecError(str(source), (Problem("", f"cannot be read: {reason}"),)) from error


def parse(text: str | bytes, source: str) -> tuple[Node, list[Problem]]:
    """The tree of a spec, and what is wrong with it that reading on can live with (a key given twice).

    Raises:
        SpecError: it is not YAML, not a mapping, or beyond a limit.
    """
    node, problems = _parse(text, source)
    if node is None:
        raise SpecError(source, (Problem("", "the spec is empty", 1, 1),))
    if not isinstance(node.content, dict):
        message = f"expected `key: value` lines, got {describe(node.plain())}"
        raise SpecError(source, (Problem("", message, node.place.line, node.place.column),))
    return node, problems


def parse_value(text: str) -> Node:
    """The value of a ``--set``: a scalar, or a list or mapping in brackets. Anything else is text as it stands.

    Raises:
        SpecError: it is not YAML, or beyond a limit.
    """
    node, problems = _parse(text, "--set", in_file=False)
    if problems:
        raise SpecError("--set", tuple(problems))
    if node is None:
        return Node(None)
    in_brackets = text.lstrip()[:1] in {"[", "{", "&", "!"}
    return node if in_brackets or not isinstance(node.content, dict | list) else Node(text)


def describe(value: Any, limit: int = 60) -> str:
    """A value for a message, as YAML would have it: ``'fp23'``, ``null``, ``a mapping``."""
    if isinstance(value, dict):
        return f"a mapping ({', '.join(map(str, value))[:limit]})" if value else "an empty mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    shown = repr(value)
    return shown if len(shown) <= limit else f"{shown[: limit - 4]}...{shown[-1]}"


def _parse(text: str | bytes, source: str, in_file: bool = True) -> tuple[Node | None, list[Problem]]:
    builder = _Builder(source, in_file)
    decoded = _decoded(text, source)
    # PyYAML refuses these too, without saying in which line.
    if odd := _UNPRINTABLE.search(decoded):
        builder.refuse(f"the character {odd[0]!r} is not allowed", builder.place_in(decoded, odd.start()))
    try:
        for event in yaml.parse(decoded, Loader=_LOADER):
            builder.feed(event)
    except yaml.MarkedYAMLError as error:
        if (paired := _PAIR.sub(_as_one, decoded)) != decoded:
            return _parse(paired, source, in_file)
        mark = error.problem_mark or error.context_mark
        builder.refuse(_syntax_message(error, decoded), builder.place(mark))
    return builder.root, builder.problems


def _as_one(pair: re.Match[str]) -> str:
    """The same as YAML escapes it."""
    high, low = int(pair[2], 16) - 0xD800, int(pair[3], 16) - 0xDC00
    return f"{pair[1]}\\U{0x10000 + high * 0x400 + low:08x}"


def _decoded(text: str | bytes, source: str) -> str:
    # An argument that was no text has surrogates in it: they go on as bytes that are refused below, with their place.
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise SpecError(source, (Problem("", f"a spec may have {MAX_BYTES // 2**20} MiB at the most"),))
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        message = f"expected UTF-8 text, got the byte {data[error.start]:#04x}"
        raise SpecError(source, (Problem("", message, line, column),)) from error


def _syntax_message(error: yaml.MarkedYAMLError, text: str) -> str:
    parts = [part for part in (error.context, error.problem) if part]
    mark = error.problem_mark
    tab = mark is not None and text[mark.index : mark.index + 1] == "\t"
    return f"this is not YAML: {', '.join(parts)}{'; indent with spaces, not tabs' if tab else ''}"


def _scalar(text: str) -> Any:
    """A plain (unquoted) scalar by YAML 1.2's core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in "+-.0123456789" and len(text) <= _LONGEST_NUMBER:
        for pattern, number in _NUMBERS:
            if pattern.fullmatch(text):
                return number(text)
    return text


@dataclass
class _Open:
    """A mapping or list whose end has not been read yet."""

    place: Place
    anchor: str | None
    is_mapping: bool
    items: list[Node] = field(default_factory=list)
    content: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Place] = field(default_factory=dict)
    key: str | None = None
    key_place: Place = SET
    merged: list[Node] = field(default_factory=list)
    merging: bool = False


class _Builder:
    """Builds nodes from parser events, and refuses at the first event beyond a limit."""

    def __init__(self, source: str, in_file: bool) -> None:
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self._source = source
        self._in_file = in_file
        self._open: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}
        self._nodes = 0
        self._characters = 0

    def feed(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._add_scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            self._add_alias(event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._start(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._end()
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            self.refuse("expected one document, got a second (---)", self.place(event.start_mark))

    def place(self, mark: Any) -> Place:
        return Place(mark.line + 1, mark.column + 1) if mark is not None and self._in_file else SET

    def place_in(self, text: str, index: int) -> Place:
        line, column = text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)
        return Place(line, column) if self._in_file else SET

    def refuse(self, message: str, place: Place) -> NoReturn:
        raise SpecError(self._source, (*self.problems, Problem("", message, place.line, place.column)))

    def _start(self, event: Any) -> None:
        place = self.place(event.start_mark)
        if len(self._open) >= MAX_DEPTH:
            self.refuse(f"nested more than {MAX_DEPTH} levels deep", place)
        self._plain_tag(event, place)
        if self._expects_key():
            self.refuse("expected text as the key, got a list or mapping", place)
        if event.anchor:  # known but not whole: an alias inside it would have no end
            self._anchors[event.anchor] = None
        self._open.append(_Open(place, event.anchor, isinstance(event, yaml.MappingStartEvent)))

    def _end(self) -> None:
        done = self._open.pop()
        content, keys = _merged(done) if done.is_mapping else (done.items, done.keys)
        children = list(content.values()) if isinstance(content, dict) else content
        node = Node(
            content, done.place, keys,
            nodes=1 + sum(child.nodes for child in children),
            characters=sum(child.characters for child in children) + sum(map(len, keys)),
            height=1 + max((child.height for child in children), default=0),
        )  # fmt: skip
        if done.anchor:
            self._anchors[done.anchor] = node
        self._count(1, 0, done.place)
        self._add(node)

    def _add_scalar(self, event: Any) -> None:
        place = self.place(event.start_mark)
        self._plain_tag(event, place)
        self._count(1, len(event.value), place)
        if "\0" in event.value:  # by an escape in quotes; no database takes it
            self.refuse("the character NUL is not allowed", place)
        if self._expects_key():
            self._set_key(event, place)
            return
        value = _scalar(event.value) if event.implicit[0] else event.value
        if isinstance(value, float) and not math.isfinite(value):
            path = dotted(self._path())
            self.problems.append(
                Problem(path, f"expected a finite number, got {event.value}", place.line, place.column)
            )
        node = Node(value, place, characters=len(event.value))
        if event.anchor:
            self._anchors[event.anchor] = node
        self._add(node)

    def _add_alias(self, event: Any) -> None:
        place = self.place(event.start_mark)
        if self._expects_key():
            self.refuse("expected text as the key, got an alias", place)
        node = self._anchors.get(event.anchor)
        if node is None:
            what = "is inside what it stands for" if event.anchor in self._anchors else "has no anchor above it"
            self.refuse(f"the alias *{event.anchor} {what}", place)
        if len(self._open) + node.height > MAX_DEPTH + 1:
            self.refuse(f"nested more than {MAX_DEPTH} levels deep", place)
        self._count(node.nodes, node.characters, place)
        self._add(node)

    def _count(self, nodes: int, characters: int, place: Place) -> None:
        """Count values as often as aliases repeat them: an alias bomb falls at its first levels."""
        self._nodes += nodes
        self._characters += characters
        if self._nodes > MAX_NODES:
            self.refuse(f"more than {MAX_NODES:,} values, counting what aliases repeat", place)
        if self._characters > MAX_BYTES:
            self.refuse(f"more than {MAX_BYTES:,} characters, counting what aliases repeat", place)

    def _plain_tag(self, event: Any, place: Place) -> None:
        if event.tag not in _PLAIN_TAGS:
            self.refuse(f"the tag {event.tag} is not allowed: a spec is plain data", place)

    def _expects_key(self) -> bool:
        return bool(self._open) and self._open[-1].is_mapping and self._open[-1].key is None

    def _set_key(self, event: Any, place: Place) -> None:
        mapping = self._open[-1]
        mapping.merging = event.value == "<<" and event.implicit[0]
        mapping.key, mapping.key_place = event.value, place

    def _add(self, node: Node) -> None:
        if not self._open:
            self.root = node
        elif not self._open[-1].is_mapping:
            self._open[-1].items.append(node)
        else:
            self._add_value(self._open[-1], node)

    def _add_value(self, mapping: _Open, node: Node) -> None:
        if mapping.merging:
            mapping.merged.extend(self._merge_sources(node, mapping.key_place))
        elif mapping.key is not None:
            if mapping.key in mapping.keys:
                self._given_twice(mapping, mapping.key)
            mapping.content[mapping.key] = node
            mapping.keys[mapping.key] = mapping.key_place
        mapping.key, mapping.merging = None, False

    def _merge_sources(self, node: Node, place: Place) -> list[Node]:
        sources = node.content if isinstance(node.content, list) else [node]
        if not all(isinstance(source.content, dict) for source in sources):
            self.refuse("expected a mapping, or a list of mappings, to merge here", place)
        return list(sources)

    def _given_twice(self, mapping: _Open, key: str) -> None:
        first, second = mapping.keys[key], mapping.key_place
        lines = f": on line {first.line} and on line {second.line}" if first.line is not None else ""
        path = dotted(self._path())
        self.problems.append(Problem(path, f"given twice{lines}", second.line, second.column))

    def _path(self) -> Path:
        return tuple(_steps(self._open))


def _steps(levels: list[_Open]) -> Iterator[str | int]:
    for level in levels:
        if level.is_mapping and level.key is None:
            return
        yield level.key if level.key is not None else len(level.items)


def _merged(mapping: _Open) -> tuple[dict[str, Node], dict[str, Place]]:
    """The mapping's own keys over those that it merges; of several sources, the first wins."""
    content: dict[str, Node] = {}
    keys: dict[str, Place] = {}
    for source in reversed(mapping.merged):
        content |= source.content
        keys |= source.keys
    return content | mapping.content, keys | mapping.keys
