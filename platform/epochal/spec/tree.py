"""A job spec as it was written: plain values that remember where they stand in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Path = tuple[str | int, ...]
"""The way to a value: keys of mappings and indexes of lists."""

FLAT_SECTIONS: tuple[Path, ...] = (("sweep", "space"), ("tags",), ("env",))
"""Sections whose keys may hold dots: in a dotted path, all that follows is the key."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in the file, counted from 1; both None where ``--set`` gave it."""

    line: int | None = None
    column: int | None = None


SET = Place()


@dataclass(frozen=True, slots=True)
class Node:
    """One value and its place.

    ``content`` is a scalar, a dict of nodes or a list of nodes; ``keys`` holds the places of a mapping's keys. Nodes
    are shared where the YAML has aliases, so they are never changed, only replaced. ``nodes``, ``characters`` and
    ``height`` measure the value with every alias written out.
    """

    content: Any
    place: Place = SET
    keys: dict[str, Place] = field(default_factory=dict)
    nodes: int = 1
    characters: int = 0
    height: int = 1

    def plain(self) -> Any:
        """The bare value: dicts, lists and scalars."""
        if isinstance(self.content, dict):
            return {key: child.plain() for key, child in self.content.items()}
        if isinstance(self.content, list):
            return [child.plain() for child in self.content]
        return self.content

    def child(self, step: str | int) -> Node | None:
        if isinstance(self.content, dict):
            found = self.content.get(step)
            return found if isinstance(found, Node) else None
        if isinstance(self.content, list) and isinstance(step, int) and 0 <= step < len(self.content):
            item: Node = self.content[step]
            return item
        return None

    def at(self, path: Path) -> Node | None:
        """The node at ``path``; None where there is none."""
        node: Node | None = self
        for step in path:
            node = node.child(step) if node is not None else None
        return node

    def place_of(self, path: Path, of_key: bool = False) -> Place | None:
        """Where the value at ``path`` stands, or its key; for what is missing, the section it is missing from."""
        if not path:
            return self.place
        parent = self.at(path[:-1])
        found = parent.child(path[-1]) if parent is not None else None
        if parent is None or found is None:
            return self.place_of(path[:-1], of_key=True)
        return parent.keys.get(str(path[-1]), found.place) if of_key else found.place

    def put(self, path: Path, node: Node) -> Node:
        """A copy with ``node`` at ``path``; missing mappings are made, and scalars in the way become mappings.

        Raises:
            IndexError: a list on the way is shorter; the message says so.
        """
        if not path:
            return node
        step, rest = path[0], path[1:]
        if isinstance(self.content, list):
            return self._put_item(step, rest, node)
        children = self.content if isinstance(self.content, dict) else {}
        child = children.get(step) or Node(None)
        keys = {**self.keys, str(step): SET} if step not in children else self.keys
        return replace(self, content={**children, str(step): child.put(rest, node)}, keys=keys)

    def _put_item(self, step: str | int, rest: Path, node: Node) -> Node:
        items: list[Node] = self.content
        if not isinstance(step, int) or step > len(items):
            raise IndexError(f"expected an index from 0 to {len(items)}, got {step!r}")
        child = items[step] if step < len(items) else Node(None)
        return replace(self, content=[*items[:step], child.put(rest, node), *items[step + 1 :]])

    def without(self, path: Path) -> Node:
        """A copy without what is at ``path``; the same where nothing is."""
        if self.at(path) is None or not path:
            return self
        step, rest = path[0], path[1:]
        if isinstance(self.content, list):
            index = int(step)
            kept = [self.content[index].without(rest)] if rest else []
            return replace(self, content=[*self.content[:index], *kept, *self.content[index + 1 :]])
        changed = {**self.content, step: self.content[step].without(rest)} if rest else dict(self.content)
        if not rest:
            del changed[step]
        return replace(self, content=changed)

    def resolve(self, dotted: str) -> Path:
        """The path that ``dotted`` means here, following keys that hold dots themselves where such exist."""
        return tuple(self._steps(dotted.split("."), ()))

    def _steps(self, parts: list[str], above: Path) -> Iterator[str | int]:
        if not parts:
            return
        taken = self._longest_key(parts, above)
        step: str | int = ".".join(parts[:taken])
        if isinstance(self.content, list) and parts[0].isascii() and parts[0].isdigit():
            step = int(parts[0][:9])  # int() refuses thousands of digits; no list has so many items
        yield step
        yield from (self.child(step) or Node(None))._steps(parts[taken:], (*above, step))

    def _longest_key(self, parts: list[str], above: Path) -> int:
        if isinstance(self.content, dict):
            for count in range(len(parts), 0, -1):
                if ".".join(parts[:count]) in self.content:
                    return count
        return len(parts) if above in FLAT_SECTIONS else 1


def dotted(path: Path) -> str:
    return ".".join(str(step) for step in path)


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value below ``value`` that is no mapping, or an empty one, with its path."""
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from leaves(below, (*path, key))
    else:
        yield path, value


def overlaps(one: Path, other: Path) -> bool:
    """Whether one of the two is at or below the other."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def placed(stored: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a sweep, as it is ``stored``, with the values of a ``point`` (by dotted path) in their places and no
    ``sweep`` block. Nothing is checked: points were, where they came from.

    >>> placed({"train": {"seed": 0}, "sweep": {}}, {"train.optimizer.lr": 0.1})
    {'train': {'seed': 0, 'optimizer': {'lr': 0.1}}}
    """
    spec: dict[str, Any] = {name: value for name, value in stored.items() if name != "sweep"}
    for path, value in point.items():
        section, *steps = path.split(".")
        spec[section] = _put(spec.get(section), steps, value)
    return spec


def _put(below: Any, steps: Sequence[str], value: Any) -> Any:
    if not steps:
        return value
    mapping = dict(below) if isinstance(below, Mapping) else {}
    return {**mapping, steps[0]: _put(mapping.get(steps[0]), steps[1:], value)}
