"""Paths in a dataset's parameters."""

from __future__ import annotations

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
