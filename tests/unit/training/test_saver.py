"""What the saver tells the watchdog of: work that gets done, and nothing else."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

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


def test_the_trials_of_a_kept_gang_save_over_one_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each took four descriptors and three threads, for good: after some hundred trials there was none left."""
    monkeypatch.setattr(Saver, "_run", lambda *_: None)
    make, made = dist.new_group, list[dist.ProcessGroup]()
    monkeypatch.setattr(dist, "new_group", lambda **options: made.append(make(**options)) or made[-1])
    for gangs in (1, 2):
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            for trial in range(3):
                saving = Saver(tmp_path / str(trial), Worker(0, 2), Keep(), None)
                saving.start(SNAPSHOT)
                saving.wait()
            assert len(made) == gangs
            dist.all_reduce(torch.ones(1), group=made[-1])
        finally:
            dist.destroy_process_group()
