"""Boxes on images: left, top, right and bottom in pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def area(boxes: Tensor) -> Tensor:
    """Of boxes (..., 4): (...)."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0)
    return sides[..., 0] * sides[..., 1]


def iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) that broadcast: (...)."""
    shared, united = _shared_and_united(one, other)
    return shared / united.clamp_min(1e-9)


def generalized_iou(one: Tensor, other: Tensor) -> Tensor:
    """From -1 (far apart) to 1 (the same), with a gradient where they do not meet: Rezatofighi et al. 2019,
    https://arxiv.org/abs/1902.09630.
    """
    shared, united = _shared_and_united(one, other)
    hull = area(torch.cat([torch.minimum(one, other)[..., :2], torch.maximum(one, other)[..., 2:]], dim=-1))
    return shared / united.clamp_min(1e-9) - (hull - united) / hull.clamp_min(1e-9)


def _shared_and_united(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    shared = area(torch.cat([torch.maximum(one, other)[..., :2], torch.minimum(one, other)[..., 2:]], dim=-1))
    return shared, area(one) + area(other) - shared


def suppressed(boxes: Tensor, classes: Tensor, most: float) -> Tensor:
    """Which boxes meet one before them, of their class and not suppressed itself, by more than an IoU of ``most``.

    boxes: (batch, boxes, 4) and classes: (batch, boxes), the surest first; returns (batch, boxes).
    """
    alike = classes[:, :, None] == classes[:, None, :]
    meets = (iou(boxes[:, :, None], boxes[:, None, :]) > most) & alike
    gone = torch.zeros_like(classes, dtype=torch.bool)
    for place in range(boxes.shape[1] - 1):
        after = meets[:, place, place + 1 :] & ~gone[:, place, None]
        gone[:, place + 1 :] |= after
    return gone
