"""Paths in a dataset's parameters, and the boundary around the reading of what is there."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from epochal.errors import EpochalError
from epochal.own_code import place
from epochal.redaction import named, said


def existing(path: str, folder: Path) -> Path:
    """``path``, meant from ``folder`` where it is relative.

    Raises:
        EpochalError: nothing is there.
    """
    found = folder / Path(path).expanduser()
    if not found.exists():
        hint = "relative paths are meant from the spec's folder; the workers must see the same files"
        raise EpochalError(f"{found} does not exist", hint)
    return found


def matching(pattern: str, folder: Path) -> list[Path]:
    """What a path or a pattern (``*``, ``**``, ``?``, ``[...]``) means, from ``folder`` where it is relative, by name.

    Raises:
        EpochalError: nothing is there.
    """
    given = Path(pattern).expanduser()
    if (folder / given).exists():  # of that very name, whatever it is spelled with
        return [folder / given]
    # By `root_dir`, as the folder's own name is no pattern.
    found = sorted(glob.glob(str(given), root_dir=folder, recursive=True))
    return [folder / one for one in found] or [existing(pattern, folder)]


_LEFTOVERS = {"__MACOSX", "Thumbs.db", "desktop.ini", "Icon\r"}


def is_hidden(name: str) -> bool:
    """What systems and programs leave in folders, and no viewer shows."""
    return name.startswith(".") or name in _LEFTOVERS


def walk(folder: Path) -> Iterator[Path]:
    """The files below, links followed, each folder once: a link may lead back to where it is.

    Raises:
        EpochalError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise EpochalError(f"{error.filename} cannot be listed: {error.strerror}", "see to it, or take it out")

    seen = set()
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else sorted(name for name in folders if not is_hidden(name))
        yield from (Path(parent, name) for name in names if real not in seen)
        seen.add(real)


def ending(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files below that end in one of ``suffixes``, in any case of letters, and are not hidden, by name."""
    return sorted(file for file in walk(folder) if file.suffix.lower() in suffixes and not is_hidden(file.name))


@contextmanager
def reading(
    path: Path | str, expected: str = "", hint: str = "is it whole, and of the kind that its name says?"
) -> Generator[None]:
    """Whatever a reader of ``path`` raises becomes an ``EpochalError`` that names it; one that is, is left as it is."""
    try:
        yield
    except EpochalError:
        raise
    except Exception as error:
        found = said(error) if isinstance(error, OSError | ValueError) else named(error)
        where = f" ({line})" if (line := place(error)) else ""
        raise EpochalError(f"{path} cannot be read{expected and f' as {expected}'}: {found}{where}", hint) from error


_read: ContextVar[str] = ContextVar("the name of what is being read", default="")


@contextmanager
def naming_warnings(path: Path | str) -> Generator[None]:
    """What libraries warn of within the block, and the user's filters let through, is shown with ``path`` before it.

    Not by ``warnings.catch_warnings``: each use of it makes Python forget what was shown already, so that what is to be
    shown once would be, in a training, in every step.
    """
    before = warnings.showwarning

    def show(message: Warning | str, *rest: Any, **more: Any) -> None:
        name = _read.get()
        if isinstance(message, Warning) and name not in str(message):
            message.args = (f"{name}: {message}",)
        before(message, *rest, **more)

    token = _read.set(str(path))
    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
        _read.reset(token)
