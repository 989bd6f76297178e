"""A task gives the weights of its batches, or leaves that to the samples."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

import training_pieces as pieces
from epochal.catalog.data import Batch
from epochal.catalog.task import Loss
from epochal.errors import TrainingError
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.worker import Worker


class Sometimes(pieces.WeightedClassification):
    """Has no weight for a batch without the last class."""

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        loss = super().loss(model, batch)
        return loss if (batch["target"] == pieces.CLASSES - 1).any() else loss._replace(weight=None)


@pytest.mark.parametrize("micro_batch_size", [None, 1])
def test_a_weight_for_some_batches_only_is_told(tmp_path: Path, micro_batch_size: int | None) -> None:
    job = pieces.spec(epochs=4, global_batch_size=4, micro_batch_size=micro_batch_size)
    with pytest.raises(TrainingError, match=r"Loss\.weight for some batches"):
        fit(pieces.setup(job, task=Sometimes()), Worker(), tmp_path, MemoryRecorder(), NullControl())
