"""Classification that takes its time for as long as a test wants: no arithmetic changes, so neither does the curve."""

from __future__ import annotations

import os
import time
from pathlib import Path

from torch import nn

from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.task import Loss
from epochal.catalog.tasks.classification import Classification, ClassificationParams, build

MARKER = "SLOW_WHILE"
"""The variable that names a file: steps are slow while that is there."""

SECONDS = "SLOW_SECONDS"
"""The variable that says how much longer a step lasts then."""


class SlowClassification:
    def __init__(self, info: DataInfo) -> None:
        self._task: Classification = build(ClassificationParams(), info)
        self._marker = Path(os.environ.get(MARKER) or "/nowhere")
        self._seconds = float(os.environ.get(SECONDS) or 0.1)
        self.metrics = self._task.metrics

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        if self._marker.exists():
            time.sleep(self._seconds)
        return self._task.loss(model, batch)
