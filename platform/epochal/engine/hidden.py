"""Modules of the user's code that have the names of others, which they hide: it comes first on the import path."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib.machinery import PathFinder, all_suffixes
from pathlib import Path

from epochal.errors import CodeError, some

OURS = frozenset({
    "epochal", "PIL", "alembic", "click", "cmaes", "fastapi", "fsspec", "gymnasium", "httpx", "lightning_utilities",
    "matplotlib", "mlflow", "numpy", "optuna", "pathspec", "prometheus_client", "psutil", "pyarrow", "pydantic",
    "pynvml", "ray", "rich", "safetensors", "scipy", "sklearn", "sqlalchemy", "torch", "torchmetrics", "uvicorn",
    "yaml",
})  # fmt: skip
"""Epochal, and what it imports of what it depends on (a test compares)."""

_PYTHONS = sys.stdlib_module_names | {"test"}
_FOLDER_OF_TESTS = "test"
"""Python's own module of this name is imported by nobody, and many have such a folder."""
_YOURS = "these files of your code have the names"
_EITHER = "a worker may import either, and a process that it starts fails if it needs Python's"
_RENAME = "rename them, or leave them out with code.exclude"


def check_modules(files: Mapping[str, Path], has_loaders: bool = False) -> tuple[str, ...]:
    """Warnings about modules at the top of a package with these ``files`` that have the name of another's.

    ``has_loaders``: workers start processes that read the data.

    Raises:
        CodeError: it is one that the workers themselves import, or the processes that they start.
    """
    modules = _modules(files)
    if ours := [file for name, file in modules.items() if name in OURS]:
        raise CodeError(
            f"the workers would import these files of your code in place of what they are made of: {some(ours, 5)}",
            _RENAME,
        )
    python = [file for name, file in modules.items() if name in _PYTHONS]
    if has_loaders and (hiding := [file for file in python if file != modules.get(_FOLDER_OF_TESTS)]):
        raise CodeError(
            f"the processes that read the data would import these files of your code in place of Python's own modules:"
            f" {some(hiding, 5)}",
            f"{_RENAME}, or set data.loader_workers to 0",
        )
    others = [f"{file} ({where})" for name, file in modules.items() if (where := _elsewhere(name, files))]
    return (
        *([f"{_YOURS} of Python's own modules: {some(python, 5)}; {_EITHER}"] if python else []),
        *([f"{_YOURS} of installed modules, which they hide: {some(others, 5)}"] if others else []),
    )


def _modules(files: Iterable[str]) -> dict[str, str]:
    """The modules and packages at the top: the file that makes each one, by its name."""
    suffixes = sorted(all_suffixes(), key=len, reverse=True)
    found: dict[str, str] = {}
    for file in sorted(files):
        for suffix in suffixes:
            name = file.removesuffix(suffix)
            if name != file and (top := name.removesuffix("/__init__")).isidentifier():
                found.setdefault(top, file)
                break
    return found


def _elsewhere(name: str, files: Mapping[str, Path]) -> str:
    """The file of an installed module of that name; empty where there is none, or where it is the code itself."""
    installed = [entry for entry in sys.path if {"site-packages", "dist-packages"} & set(Path(entry).parts)]
    found = PathFinder.find_spec(name, installed)
    origin = found.origin if found is not None and found.has_location else None
    return "" if origin is None or Path(origin).resolve() in files.values() else origin
