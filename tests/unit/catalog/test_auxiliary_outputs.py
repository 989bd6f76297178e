"""Models of torchvision that give several outputs while they train, without torchvision: it has no CPU build here."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from epochal.catalog.data import DataInfo, Field
from epochal.catalog.providers.from_torchvision import build
from epochal.errors import EpochalError

IMAGES = DataInfo(Field((3, 32, 32)), Field((), torch.int64, 10))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the models are made with."""
    made: list[dict[str, Any]] = []
    names = ["googlenet", "inception_v3", "resnet18"]

    def get_model(name: str, **params: Any) -> nn.Module:
        made.append({"name": name, **params})
        return nn.Identity()

    models = SimpleNamespace(segmentation=object(), get_model=get_model)
    models.list_models = lambda module=models: names if module is models else []
    torchvision = ModuleType("torchvision")
    torchvision.models = models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    return made


def test_auxiliary_classifiers_are_left_out(made: list[dict[str, Any]]) -> None:
    for name in ("googlenet", "inception_v3", "resnet18"):
        build(name, {}, IMAGES)
    of_all = {"weights": None, "num_classes": 10}
    assert made == [
        {"name": "googlenet", "aux_logits": False, **of_all},
        {"name": "inception_v3", "aux_logits": False, **of_all},
        {"name": "resnet18", **of_all},
    ]


def test_who_asks_for_them_is_told_why_not(made: list[dict[str, Any]]) -> None:
    with pytest.raises(EpochalError, match="torchvision/googlenet gives several outputs with aux_logits"):
        build("googlenet", {"aux_logits": True}, IMAGES)
    assert not made
