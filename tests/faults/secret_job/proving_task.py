"""Classification that prints a digest of its secret, and never the secret."""

from __future__ import annotations

import hashlib
import os

from epochal.catalog.data import DataInfo
from epochal.catalog.tasks.classification import Classification, ClassificationParams, build


class ProvingClassification:
    def __init__(self, info: DataInfo) -> None:
        task: Classification = build(ClassificationParams(), info)
        self.loss, self.metrics = task.loss, task.metrics
        print(f"secret {hashlib.sha256(os.environ['CANARY_SECRET'].encode()).hexdigest()}")
