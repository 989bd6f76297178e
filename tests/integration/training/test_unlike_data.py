"""Workers read the data by themselves, each on its own node."""

from __future__ import annotations

from pathlib import Path

import pytest

import training_pieces as pieces
from epochal.errors import TrainingError
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.worker import Worker
from training_gang import GangError, TestGang


def trained(worker: Worker, folder: Path, more: int, held: int) -> None:
    """The second worker has found so many samples ``more`` to train on, and ``held`` more to validate on."""
    data = pieces.data(25 + more * worker.rank, 11 + held * worker.rank)
    job = pieces.spec(epochs=1, resources__workers=worker.world_size)
    fit(pieces.setup(job, data=data), worker, folder, MemoryRecorder(), NullControl())


@pytest.mark.parametrize(("more", "held", "found"), [(1, 0, "26 samples to train on, 11"), (0, 2, "25 samples.* 13")])
def test_workers_that_have_found_other_data_all_say_so(
    gang: TestGang, tmp_path: Path, more: int, held: int, found: str
) -> None:
    with pytest.raises(
        GangError, match=rf"worker 1 has found {found} to validate on, and worker 0 25 .*, 11 "
    ) as caught:
        gang.run(2, trained, tmp_path, more, held)
    assert [type(error) for error in caught.value.errors] == [TrainingError, TrainingError]
