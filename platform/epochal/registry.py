"""Names to things: one visible table a kind, imported when used, open to entry points."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from epochal.errors import ConflictError, NotFoundError

T = TypeVar("T")


class Registry(Generic[T]):
    """A table ``name -> "module:attribute"`` whose values are imported at first use.

    Other distributions add names through the entry point group ``epochal.<kind>``. A name taken already is refused
    with a warning, and so is a plugin that cannot be read: a broken plugin never takes the built-in entries down.

    >>> table = Registry[type]("number", {"fraction": "fractions:Fraction"})
    >>> table.get("fraction").__name__
    'Fraction'
    """

    def __init__(self, kind: str, table: Mapping[str, str]) -> None:
        self.kind = kind
        self._table = dict(table)
        self._built_in = tuple(table)
        self._plugins_read = False

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._targets()))

    def built_in(self) -> Iterator[tuple[str, T]]:
        """Names and things of the table itself, without what plugins added."""
        return ((name, cast(T, resolve(self._table[name]))) for name in self._built_in)

    def __contains__(self, name: object) -> bool:
        return name in self._targets()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def get(self, name: str) -> T:
        """The thing called ``name``.

        Raises:
            NotFoundError: nothing is; the hint names the closest.
        """
        targets = self._targets()
        if name not in targets:
            raise NotFoundError(self.kind, name, tuple(targets))
        return cast(T, resolve(targets[name]))

    def add(self, name: str, target: str) -> None:
        """Add one name.

        Raises:
            ConflictError: the name is taken.
        """
        if name in self._table:
            raise ConflictError(f"{self.kind} {name!r} is already registered as {self._table[name]}")
        self._table[name] = target

    def _targets(self) -> dict[str, str]:
        if not self._plugins_read:
            self._plugins_read = True
            for point in entry_points(group=f"epochal.{self.kind}"):
                try:
                    self.add(point.name, point.value)
                except ConflictError as error:
                    warnings.warn(f"plugin ignored: {error}", stacklevel=2)
        return self._table


def resolve(target: str) -> object:
    """Import ``"module:attribute"``."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)
