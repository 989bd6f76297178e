"""Residual networks (He et al. 2015, https://arxiv.org/abs/1512.03385).

The stride of a bottleneck sits on its 3x3 convolution (ResNet v1.5), and the modules are named, as in torchvision, so
that published weights load by ``train.init_from``.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.architectures.image import image_shape
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.entry import Architecture, Params


class ResNetParams(Params):
    depth: Literal[18, 34, 50, 101, 152] = 18
    """Layers with weights: 18 and 34 use plain blocks, the others bottlenecks."""
    stem: Literal["auto", "imagenet", "small"] = "auto"
    """imagenet: a 7x7 convolution of stride 2 and a pooling; small: one 3x3 convolution; auto: small up to 32x32."""


class PlainBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = shortcut(inputs, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, inputs, height, width); returns (batch, channels, height / stride, width / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """A 1x1 convolution down, a 3x3, a 1x1 up to four times the channels, and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = channels * self.expansion
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, inputs, height, width); returns (batch, 4 * channels, height / stride, width / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The identity where shapes agree, otherwise a 1x1 projection."""
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


_LAYOUTS: dict[int, tuple[type[PlainBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (PlainBlock, (2, 2, 2, 2)),
    34: (PlainBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    def __init__(self, depth: int, inputs: int, outputs: int, small: bool) -> None:
        super().__init__()
        block, counts = _LAYOUTS[depth]
        self.conv1 = nn.Conv2d(inputs, 64, 3 if small else 7, 1 if small else 2, padding=1 if small else 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = _stage(block, 64, 64, counts[0], stride=1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, counts[1], stride=2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, counts[2], stride=2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, counts[3], stride=2)
        self.fc = nn.Linear(512 * block.expansion, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # So that gradients neither grow nor vanish with depth (He et al. 2015, https://arxiv.org/abs/1502.01852,
                # section 2.2); torch draws smaller weights by default.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channels, height, width); returns (batch, outputs)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _stage(
    block: type[PlainBlock] | type[Bottleneck], inputs: int, channels: int, count: int, stride: int
) -> nn.Sequential:
    rest = (block(channels * block.expansion, channels, 1) for _ in range(count - 1))
    return nn.Sequential(block(inputs, channels, stride), *rest)


def build(params: ResNetParams, info: DataInfo) -> ResNet:
    channels, height, width = image_shape("resnet", info)
    small = params.stem == "small" or (params.stem == "auto" and max(height, width) <= 32)
    return ResNet(params.depth, channels, info.target.width, small)


ENTRY = Architecture(
    summary="Residual network of depth 18, 34, 50, 101 or 152",
    source="He et al. 2015, Deep residual learning for image recognition, https://arxiv.org/abs/1512.03385",
    params=ResNetParams,
    build=build,
    example=DataInfo(input=Field((3, 64, 64)), target=Field((), classes=1000)),
)
