"""``timm/<name>``: image models with new weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from epochal.catalog.architectures.image import image_shape
from epochal.catalog.data import DataInfo
from epochal.errors import EpochalError, NotFoundError


def build(name: str, params: dict[str, Any], info: DataInfo) -> nn.Module:
    import timm

    if name.partition(".")[0] not in (known := timm.list_models()):
        raise NotFoundError("model of timm", name, tuple(known))
    channels, _, _ = image_shape(f"timm/{name}", info)
    if params.get("pretrained"):
        raise EpochalError(
            "weights are not downloaded in a training", "save them to a file and name it in train.init_from"
        )
    outputs = {"num_classes": info.target.width, "in_chans": channels}
    model: nn.Module = timm.create_model(name, **{**outputs, **params, "pretrained": False})
    return model
