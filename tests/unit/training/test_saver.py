"""What the saver tells the watchdog of: work that gets done, and nothing else."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from epochal.spec.job import Keep
from epochal.training import checkpoint, saver, tensors
from epochal.training.checkpoint import Manifest
from epochal.training.saver import Saver, Snapshot
from epochal.training.worker import Worker
from polling import until

SNAPSHOT = Snapshot(Manifest(3, 0, 1, "ddp"), {"model.weight": torch.ones(4)}, frozenset(), {}, best=False)
STAGE, GROWTH = True, False


def test_a_saver_that_waits_for_its_disk_makes_no_progress(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mended, told = threading.Event(), list[bool]()
    save = tensors.save

    def hang_first(*args: Any, **options: Any) -> None:
        mended.wait()
        save(*args, **options)

    monkeypatch.setattr(saver, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(tensors, "save", hang_first)
    saving = Saver(tmp_path, Worker(), Keep(), None, told.append)
    with ThreadPoolExecutor(1) as threads:
        saving.start(SNAPSHOT)
        try:
            waiting = threads.submit(saving.wait)
            until(lambda: told == [STAGE], "the first stage: its folder is there")
            time.sleep(0.2)
            assert told == [STAGE]
            (folder,) = (tmp_path / checkpoint.FOLDER).iterdir()
            (folder / "some").write_bytes(b"0123")
            until(lambda: told == [STAGE, GROWTH], "files that grow")
            time.sleep(0.2)
            assert told == [STAGE, GROWTH]
        finally:
            mended.set()
    assert [saved.step for saved in waiting.result()] == [3]
    assert told.count(STAGE) == 4
