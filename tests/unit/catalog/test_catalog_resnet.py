"""ResNets have the sizes and the names of the published ones."""

from __future__ import annotations

import pytest
import torch

from epochal.catalog.architectures.resnet import ENTRY, ResNetParams
from epochal.catalog.data import DataInfo, Field

PUBLISHED = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
IMAGENET = DataInfo(Field((3, 224, 224)), Field((), torch.int64, classes=1000))


@pytest.mark.parametrize(("depth", "count"), PUBLISHED.items())
def test_parameter_counts_are_those_published(depth: int, count: int) -> None:
    with torch.device("meta"):
        model = ENTRY.build(ResNetParams.model_validate({"depth": depth}), IMAGENET)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_the_stem_follows_the_image_unless_it_is_named() -> None:
    small = DataInfo(Field((3, 32, 32)), Field((), torch.int64, classes=10))
    with torch.device("meta"):
        kernels = [
            ENTRY.build(params, info).conv1.kernel_size
            for params, info in (
                (ResNetParams(), small),
                (ResNetParams(), IMAGENET),
                (ResNetParams(stem="imagenet"), small),
                (ResNetParams(stem="small"), IMAGENET),
            )
        ]
    assert kernels == [(3, 3), (7, 7), (7, 7), (3, 3)]


def test_names_are_those_of_torchvision() -> None:
    with torch.device("meta"):
        names = set(ENTRY.build(ResNetParams(depth=50), IMAGENET).state_dict())
    expected = {"conv1.weight", "bn1.running_mean", "layer1.0.downsample.0.weight", "layer4.2.conv3.weight", "fc.bias"}
    assert expected <= names
    assert len(names) == 320  # of torchvision's resnet50
