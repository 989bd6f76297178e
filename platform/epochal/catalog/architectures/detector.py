"""A single-stage detector without anchors, after FCOS (Tian et al. 2019, https://arxiv.org/abs/1904.01355).

Every place of a pyramid of feature maps says of what class the object there is, how far its four sides are, and how
near its middle the place lies. With `resnet50`, a width of 256 and four layers it is torchvision's `fcos_resnet50_fpn`.
"""

from __future__ import annotations

from itertools import pairwise
from math import log
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field as Bounds
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.architectures.image import image_shape
from epochal.catalog.architectures.resnet import ResNet
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params
from epochal.errors import EpochalError


class DetectorParams(Params):
    backbone: Literal["small", "resnet18", "resnet34", "resnet50"] = "small"
    """What sees the image: `small` gives maps of a quarter and an eighth of its size, the others of 1/8 to 1/128."""
    width: Annotated[int, Bounds(ge=8, multiple_of=8)] = 64
    """Channels of the pyramid and of the layers on it; the paper's is 256."""
    depth: Annotated[int, Bounds(ge=0, le=20)] = 2
    """Layers between the pyramid and what it says, for classes and for boxes each; the paper's is 4."""


class Detections(NamedTuple):
    """What is said at each of the ``places`` of all maps together."""

    logits: Tensor
    """(batch, places, classes), before the sigmoid."""
    boxes: Tensor
    """(batch, places, 4): left, top, right and bottom in pixels."""
    centres: Tensor
    """(batch, places), before the sigmoid: 1 in the middle of an object, 0 at its border."""
    places: Tensor
    """(batch, places, 3): x and y of each place in pixels, and how many pixels it is from the next on its map."""


class SmallBackbone(nn.Module):
    """Five convolutions, of which three halve the image."""

    channels = (64, 128)
    strides = (4, 8)

    def __init__(self, inputs: int) -> None:
        super().__init__()
        widths = (inputs, 32, 64, 64, 128, 128)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, stride=2 if number in (0, 1, 3) else 1, padding=1), nn.GroupNorm(8, b), nn.ReLU()
            )
            for number, (a, b) in enumerate(pairwise(widths))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """x: (batch, inputs, height, width); returns maps of a quarter and of an eighth of its size."""
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return [maps[2], maps[4]]


class ResNetBackbone(nn.Module):
    """The last three stages of a residual network."""

    strides = (8, 16, 32)

    def __init__(self, depth: int, inputs: int) -> None:
        super().__init__()
        self.body = ResNet(depth, inputs, 1, small=False)
        width = self.body.fc.in_features
        del self.body.fc  # nothing is read from the whole image
        self.channels = (width // 4, width // 2, width)

    def forward(self, x: Tensor) -> list[Tensor]:
        """x: (batch, inputs, height, width); returns maps of 1/8, 1/16 and 1/32 of its size."""
        body = self.body
        x = body.layer1(body.maxpool(F.relu(body.bn1(body.conv1(x)))))
        maps = []
        for stage in (body.layer2, body.layer3, body.layer4):
            x = stage(x)
            maps.append(x)
        return maps


class Pyramid(nn.Module):
    """Feature maps of one width, coarse ones added to finer ones, and ``extra`` still coarser (Lin et al. 2017)."""

    def __init__(self, channels: tuple[int, ...], width: int, extra: int) -> None:
        super().__init__()
        self.inner = nn.ModuleList(nn.Conv2d(one, width, 1) for one in channels)
        self.outer = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.extra = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(extra))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Each (batch, channels, height, width), from fine to coarse; returns as many and the extra ones."""
        merged = [self.inner[-1](maps[-1])]
        for layer, finer in zip(reversed(self.inner[:-1]), reversed(maps[:-1]), strict=True):
            merged.insert(0, layer(finer) + F.interpolate(merged[0], size=finer.shape[-2:]))
        found: list[Tensor] = [layer(one) for layer, one in zip(self.outer, merged, strict=True)]
        for place, layer in enumerate(self.extra):
            found.append(layer(F.relu(found[-1]) if place else found[-1]))
        return found


class Detector(nn.Module):
    def __init__(self, params: DetectorParams, inputs: int, classes: int) -> None:
        super().__init__()
        kind = params.backbone
        self.backbone = SmallBackbone(inputs) if kind == "small" else ResNetBackbone(int(kind[6:]), inputs)
        extra = 0 if kind == "small" else 2
        last = self.backbone.strides[-1]
        self.strides = (*self.backbone.strides, *(last * 2 ** (one + 1) for one in range(extra)))
        self.pyramid = Pyramid(self.backbone.channels, params.width, extra)
        self.of_class, self.of_box = (_layers(params.depth, params.width) for _ in range(2))
        self.logits = nn.Conv2d(params.width, classes, 3, padding=1)
        self.sides = nn.Conv2d(params.width, 4, 3, padding=1)
        self.centre = nn.Conv2d(params.width, 1, 3, padding=1)
        for layer in (self.of_class, self.of_box, self.logits, self.sides, self.centre):
            for module in layer.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.normal_(module.weight, std=0.01)
                    nn.init.zeros_(module.get_parameter("bias"))
        nn.init.constant_(self.logits.get_parameter("bias"), -log(99))
        # 1 % each, as places without an object are far more: otherwise their loss is all of the first steps (Lin et al.
        # 2017, Focal loss for dense object detection, section 3.3).

    def forward(self, x: Tensor) -> Detections:
        """x: (batch, channels, height, width)."""
        said = []
        for features, stride in zip(self.pyramid(self.backbone(x)), self.strides, strict=True):
            of_class, of_box = self.of_class(features), self.of_box(features)
            places = _places(features, stride)
            sides = F.softplus(_flat(self.sides(of_box))) * stride
            corners = places[..., :2].repeat(1, 1, 2) + sides * sides.new_tensor([-1, -1, 1, 1])
            said.append((_flat(self.logits(of_class)), corners, _flat(self.centre(of_box))[..., 0], places))
        return Detections(*(torch.cat(parts, dim=1) for parts in zip(*said, strict=True)))


def _layers(depth: int, width: int) -> nn.Sequential:
    groups = 32 if width % 32 == 0 else 8
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(groups, width), nn.ReLU()]
    return nn.Sequential(*layers)


def _flat(features: Tensor) -> Tensor:
    """(batch, channels, height, width) as (batch, places, channels)."""
    return features.flatten(2).transpose(1, 2)


def _places(features: Tensor, stride: int) -> Tensor:
    """Middle of each place in pixels and the stride: (batch, places, 3)."""
    batch, _, height, width = features.shape
    down, right = (
        (torch.arange(size, dtype=torch.float32, device=features.device) + 0.5) * stride for size in (height, width)
    )
    grid = torch.stack([right.expand(height, width), down[:, None].expand(height, width)], dim=-1).flatten(0, 1)
    return torch.cat([grid, torch.full_like(grid[:, :1], stride)], dim=1).expand(batch, -1, -1)


def detection_target(boxes: int, classes: int) -> tuple[Field, Field]:
    """The fields ``target`` and ``labels`` of as many boxes a sample: see ``epochal.catalog.tasks.detection``."""
    return Field((boxes, 4)), Field((boxes,), torch.int64, classes + 1)


def build(params: DetectorParams, info: DataInfo) -> Detector:
    """
    Raises:
        EpochalError: the input is no image, or the target no boxes with labels.
    """
    inputs, _, _ = image_shape("detector", info)
    if "labels" not in info.more or info.target.shape != (*info.more["labels"].shape, 4):
        told = f"detector needs boxes (boxes, 4) as target, and the field labels; the target is {info.target.shape}"
        raise EpochalError(told, "use the dataset shapes with target: boxes, or one of your own with both")
    return Detector(params, inputs, info.more["labels"].width - 1)


_TARGET, _LABELS = detection_target(2, 3)

ENTRY = Architecture(
    summary="Single-stage detector without anchors: boxes and classes of what is on an image",
    source="Tian et al. 2019, FCOS: fully convolutional one-stage object detection, https://arxiv.org/abs/1904.01355",
    params=DetectorParams,
    build=build,
    example=DataInfo(Field((3, 32, 32)), _TARGET, {"labels": _LABELS}),
    own_outputs=True,
)
