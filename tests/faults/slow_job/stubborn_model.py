"""A model of which no graph can be traced, that takes its time to be pickled, and cannot be if it holds a lock."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from epochal.catalog.data import DataInfo

PACKAGED_ONCE = "PACKAGED_ONCE"
"""The variable that names a file: packaging waits until that is there."""


class StubbornModel(nn.Module):
    def __init__(self, info: DataInfo, lock: bool = True, **_: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, info.target.width))
        self.lock = threading.Lock() if lock else None

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) if x.sum() > 0 else self.layers(-x)

    def __getstate__(self) -> dict[str, Any]:
        while not Path(os.environ[PACKAGED_ONCE]).exists():
            time.sleep(0.05)
        return self.__dict__.copy()
