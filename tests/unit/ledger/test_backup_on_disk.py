"""A copy of a ledger survives a loss of power once it is told to be there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from epochal.ledger.ledger import Ledger
from epochal.ledger.maintenance import back_up


def test_a_backup_is_on_the_disk_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, fsync, named = f"sqlite:///{tmp_path / 'ledger.db'}", os.fsync, list[tuple[Path, bool]]()
    Ledger.open(url).close()
    copy = tmp_path / "copies" / "one.db"
    copy.parent.mkdir()

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        named.append((Path(f"/proc/self/fd/{descriptor}").readlink(), copy.exists()))

    monkeypatch.setattr(os, "fsync", synced)
    back_up(url, copy)
    assert named[-1:] == [(copy.parent, True)]
    Ledger.open(f"sqlite:///{copy}", upgrade=False).close()
