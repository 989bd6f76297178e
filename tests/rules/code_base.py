"""The code base as the rules see it: parsed modules, functions, imports."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "platform" / "epochal"
DOCS = ROOT / "platform" / "docs"
LEFT_BY_TOOLS = {"build", "dist", "__pycache__"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One Python file of the platform."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def package(self) -> str:
        """The part of Epochal it belongs to: ``spec``, ``engine``, ...; a module at the top is its own."""
        return self.path.relative_to(SOURCE).parts[0].removesuffix(".py")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"))

    def functions(self) -> Iterator[tuple[Function, bool]]:
        """Every function, and whether it is a method."""
        for parent in ast.walk(self.tree):
            for node in ast.iter_child_nodes(parent):
                if isinstance(node, Function):
                    yield node, isinstance(parent, ast.ClassDef)

    def imports(self) -> Iterator[tuple[str, int]]:
        """Top-level names of what it imports when it runs, inside functions too, each with its line."""
        for node in _runtime_statements(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.split(".")[0], node.lineno


@cache
def modules() -> list[Module]:
    """Each is parsed once, for all the rules."""
    return [Module(path) for path in sorted(SOURCE.rglob("*.py"))]


def files() -> Iterator[Path]:
    """Every file of the repository that is ours; of a work tree, ``.git`` is a file that names another folder."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(name for name in folders if not _left_by_tools(name))
        paths = (Path(folder, name) for name in sorted(names))
        yield from (path for path in paths if path.is_file() and path != ROOT / ".git")


def _left_by_tools(folder: str) -> bool:
    hidden = folder.startswith(".") and folder != ".ci"
    return hidden or folder in LEFT_BY_TOOLS or folder.endswith(".egg-info")


def _runtime_statements(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        names = [getattr(part, "id", "") for part in ast.walk(child.test)] if isinstance(child, ast.If) else []
        if "TYPE_CHECKING" in names or isinstance(child, ast.expr):
            continue
        yield child
        yield from _runtime_statements(child)
