"""Names of folders and files that the operating system allows, and that somebody has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ODD_NAMES = {
    "space": "my runs ",
    "quote": "it's",
    "double quote": 'the "best"',
    "hash": "run#3",
    "question": "why?x=1&y=2",
    "percent": "100%20done %zz",
    "semicolon": "a;b=c",
    "colon": "a:b",
    "login": "user:pass@host",
    "unicode": "Прогоны-é-測",
    "decomposed": "e\u0301",
    "newline": "a\nb\tc",
    "backslash": "a\\b",
    "pattern": "[ab]*{x}",
    "variable": "$HOME ~ `x`",
    "option": "-o json",
    "protocol": "memory::x",
    "hidden": ".runs",
    "long": "x" * 250,
}

NOT_TEXT = os.fsdecode(b"r\xe9sultats")
"""As Latin-1 has it; Python's str of it holds a lone surrogate."""

every_name = pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)


def home_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in a folder of that name, in a folder with nothing else in it."""
    home = tmp_path / "place" / name
    home.mkdir(parents=True)
    monkeypatch.setenv("EPOCHAL_HOME", str(home))
    return home
