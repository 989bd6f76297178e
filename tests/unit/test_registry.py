"""Names to things, with plugins from other distributions."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from epochal.errors import ConflictError, NotFoundError
from epochal.registry import Registry

TABLE = {"fraction": "fractions:Fraction", "decimal": "decimal:Decimal"}


def test_a_name_is_imported_when_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lazily_imported.py").write_text("thing = 5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry[int]("number", {"lazy": "lazily_imported:thing"})
    assert registry.names() == ("lazy",)
    assert "lazily_imported" not in sys.modules
    assert registry.get("lazy") == 5


def test_an_unknown_name_names_the_closest() -> None:
    with pytest.raises(NotFoundError) as caught:
        Registry[type]("number", TABLE).get("fractoin")
    assert caught.value.hint == "did you mean 'fraction'?"
    assert caught.value.exit_code == 3


def test_a_taken_name_is_refused() -> None:
    registry = Registry[type]("number", TABLE)
    registry.add("complex", "builtins:complex")
    assert registry.get("complex") is complex
    assert list(registry) == ["complex", "decimal", "fraction"]
    with pytest.raises(ConflictError, match="already registered as decimal:Decimal"):
        registry.add("decimal", "somewhere:else")


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution with three entry points: one good, one whose name is taken, one that is broken."""
    folder = tmp_path / "numbers_plugin-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: numbers-plugin\nVersion: 1.0\n")
    lines = ["[epochal.number]", "integer = builtins:int", "decimal = builtins:float", "broken = no_such_module:thing"]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()


@pytest.mark.usefixtures("plugin")
def test_a_plugin_adds_names_and_breaks_none() -> None:
    registry = Registry[type]("number", TABLE)
    with pytest.warns(UserWarning, match="plugin ignored: number 'decimal' is already registered"):
        assert registry.names() == ("broken", "decimal", "fraction", "integer")
    assert registry.get("integer") is int
    assert registry.get("decimal").__name__ == "Decimal"
    with pytest.raises(ModuleNotFoundError):
        registry.get("broken")
