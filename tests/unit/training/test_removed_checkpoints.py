"""Checkpoints that are removed while a file system keeps something of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from epochal.training import checkpoint


def test_what_was_not_deleted_of_one_is_not_in_the_way_of_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / checkpoint.name_of(7)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda folder, ignore_errors: None)
        for _ in range(2):
            path.mkdir()
            (path / "read by somebody").touch()
            checkpoint.remove(path)
    assert not path.exists()
    checkpoint.clean(tmp_path)
    assert list(tmp_path.iterdir()) == []
