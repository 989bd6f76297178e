"""Paths in a dataset's parameters, and the boundary around the reading of what is there."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from epochal.errors import EpochalError


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
        found = str(error) if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}"
        raise EpochalError(f"{path} cannot be read{expected and f' as {expected}'}: {found}", hint) from error
