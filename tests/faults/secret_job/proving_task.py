"""Classification that prints a digest of its secret, and the secret itself in several ways."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from epochal.catalog.data import DataInfo
from epochal.catalog.tasks.classification import Classification, ClassificationParams, build


class ProvingClassification:
    def __init__(self, info: DataInfo) -> None:
        self._task: Classification = build(ClassificationParams(), info)
        self.metrics = self._task.metrics
        secret = os.environ["CANARY_SECRET"]
        print(f"secret {hashlib.sha256(secret.encode()).hexdigest()}")
        print(f"https://me:{secret}@example.org", base64.b64encode(f"me:{secret}".encode()))
        subprocess.run(
            "echo $CANARY_SECRET; printf '\\rhalf of '; printf %s $CANARY_SECRET >&2", shell=True, check=True
        )

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        if "RAISES" in os.environ:
            Path("/nowhere", os.environ["CANARY_SECRET"]).read_text()
        return self._task.loss(model, batch)
