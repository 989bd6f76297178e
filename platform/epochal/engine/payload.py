"""What a training worker is given. Without torch, which the driver can do without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TRAIN = "epochal.engine.train:train"
"""The target of a gang that trains."""

PACKAGE = "epochal.engine.packaging:package"
"""The target of the one worker that packages the trained model afterwards; it is given the resolved job spec."""


@dataclass(frozen=True)
class TrainPayload:
    """``spec`` is the resolved job spec, ``data_folder`` what relative paths of its data start from."""

    spec: Mapping[str, Any]
    data_folder: str
