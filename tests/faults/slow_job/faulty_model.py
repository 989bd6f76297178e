"""A model that goes wrong in its tenth step, in one of the ways in which trainings do."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import torch
from torch import Tensor, nn

from epochal.catalog.data import DataInfo

STEP = 10


class FaultyModel(nn.Module):
    def __init__(self, info: DataInfo, fault: str = "", **_: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(info.input.width, info.target.width)
        self.fault = fault
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        return self._spoilt(self.layer(x)) if self.training and self.steps == STEP else self.layer(x)

    def _spoilt(self, outputs: Tensor) -> Tensor:
        if self.fault == "raises":
            raise ValueError("column 7 is not what it should be")
        if self.fault == "memory":
            return outputs + torch.ones(1 << 50).sum()
        if self.fault == "nan":
            return outputs * float("nan")
        if self.fault == "hangs":
            time.sleep(1000)
        if self.fault == "killed":  # as the kernel does to one that takes too much memory
            os.kill(os.getpid(), signal.SIGKILL)
        return outputs
