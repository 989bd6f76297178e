"""``torchvision/<name>``: models for classification and segmentation, with new weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from epochal.catalog.architectures.image import image_shape
from epochal.catalog.data import DataInfo
from epochal.errors import EpochalError, NotFoundError

_AUXILIARY = ("googlenet", "inception_v3")
"""While they train they give what classifiers in their middle say too, which no task here takes: those are left out."""


class Pixels(nn.Module):
    """A segmentation model of torchvision, with the classes last."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channels, height, width); returns (batch, height, width, classes)."""
        outputs: Tensor = self.model(x)["out"]
        return outputs.movedim(1, -1)


def build(name: str, params: dict[str, Any], info: DataInfo) -> nn.Module:
    """
    Raises:
        NotFoundError: torchvision has no model of that name.
        EpochalError: it is for something else, or cannot take this data.
    """
    from torchvision import models

    if name not in (known := models.list_models()):
        raise NotFoundError("model of torchvision", name, tuple(known))
    channels, _, _ = image_shape(f"torchvision/{name}", info)
    if channels != 3:
        raise EpochalError(f"torchvision/{name} takes images of 3 channels, and these have {channels}")
    if params.keys() & {"weights", "weights_backbone"}:
        raise EpochalError(
            "weights are not downloaded in a training", "save them to a file and name it in train.init_from"
        )
    per_pixel = name in models.list_models(module=models.segmentation)
    if not per_pixel and name not in models.list_models(module=models):
        raise EpochalError(f"torchvision/{name} is neither for classification nor for segmentation")
    if name in _AUXILIARY and params.get("aux_logits"):
        raise EpochalError(
            f"torchvision/{name} gives several outputs with aux_logits, where one is needed", "remove it"
        )
    if name in _AUXILIARY:
        params = {"aux_logits": False, **params}
    if per_pixel:
        params = {"weights_backbone": None, **params}
    model: nn.Module = models.get_model(name, weights=None, num_classes=info.target.width, **params)
    return Pixels(model) if per_pixel else model
