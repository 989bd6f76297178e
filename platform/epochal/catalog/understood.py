"""What a dataset took its files for. No torch here: agents and pages tell it too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Understood:
    """What a dataset took a part of its files for: a column, an array, a class. ``plan`` prints it."""

    name: str
    taken_for: str
    missing: int = 0
    note: str = ""
