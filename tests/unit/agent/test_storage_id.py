"""The id of a storage root."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from epochal.agent.job_folder import storage_id


def test_one_root_has_one_id_and_another_another(tmp_path: Path) -> None:
    first = storage_id(tmp_path / "a")
    assert storage_id(tmp_path / "a") == first
    (tmp_path / "mounted-elsewhere").symlink_to(tmp_path / "a")
    assert storage_id(tmp_path / "mounted-elsewhere") == first
    assert storage_id(tmp_path / "b") != first


def test_agents_that_start_together_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(storage_id, [tmp_path / "new"] * 8))) == 1
