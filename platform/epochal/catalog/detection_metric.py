"""Mean average precision of detections, as COCO defines it. Importing this imports torchmetrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from epochal.catalog.boxes import iou

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Least IoU of a detection with the box that it finds, one after the other: COCO's mean is over these."""

_RECALLS = 101
"""Recalls, from 0 to 1, over which precision is averaged."""


class MeanAveragePrecision(Metric):
    """Mean over ``thresholds`` and the classes that have boxes of the area under precision over recall.

    As COCO's (https://cocodataset.org/#detection-eval) with all areas and at most as many detections an image as are
    given; there are no crowds. It is -1 where there are no boxes at all.
    """

    scores: list[Tensor]
    kinds: list[Tensor]
    matched: list[Tensor]
    boxes: Tensor
    higher_is_better = True
    full_state_update = False

    def __init__(self, classes: int, thresholds: tuple[float, ...] = THRESHOLDS, **options: Any) -> None:
        super().__init__(**options)
        self.classes, self.thresholds = classes, thresholds
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("kinds", [], dist_reduce_fx="cat")
        self.add_state("matched", [], dist_reduce_fx="cat")
        self.add_state("boxes", torch.zeros(classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, detections: Tensor, target: Tensor, labels: Tensor) -> None:
        """detections: (batch, most, 6), each left, top, right, bottom, score and class, the surest first, a score of 0
        for none; target: (batch, boxes, 4); labels: (batch, boxes), 0 for none, else the class and 1.
        """
        for row in range(len(detections)):
            found, there = detections[row][detections[row, :, 4] > 0], labels[row] > 0
            boxes, kinds = target[row][there], labels[row][there] - 1
            self.boxes += torch.bincount(kinds, minlength=self.classes)
            self.scores.append(found[:, 4])
            self.kinds.append(found[:, 5].long())
            self.matched.append(self._matches(found, boxes, kinds))

    def _matches(self, found: Tensor, boxes: Tensor, kinds: Tensor) -> Tensor:
        """Which detections find a box that none before it has found: (detections, thresholds)."""
        matched = torch.zeros(len(found), len(self.thresholds), dtype=torch.bool, device=found.device)
        if not len(boxes):
            return matched
        overlaps = iou(found[:, None, :4], boxes[None])
        overlaps[found[:, 5].long()[:, None] != kinds[None]] = -1.0
        least = overlaps.new_tensor(self.thresholds)
        free = torch.ones(len(least), len(boxes), dtype=torch.bool, device=found.device)
        for row in (overlaps.amax(dim=1) >= least.min()).nonzero().flatten():  # few of the many meet a box at all
            best, place = torch.where(free, overlaps[row], -1.0).max(dim=1)
            matched[row] = finds = best >= least
            free[finds, place[finds]] = False
        return matched

    def compute(self) -> Tensor:
        if not self.boxes.any():
            return torch.tensor(-1.0)
        scores, kinds, matched = (
            torch.cat(list(state)) if isinstance(state, list) else state
            for state in (self.scores, self.kinds, self.matched)
        )
        precisions = []
        for kind in self.boxes.nonzero().flatten():
            own = kinds == kind
            order = scores[own].argsort(descending=True, stable=True)
            precisions.append(average_precision(matched[own][order], int(self.boxes[kind])))
        return torch.stack(precisions).mean()


def average_precision(matched: Tensor, boxes: int) -> Tensor:
    """Of detections (detections, thresholds), the surest first, where there are so many boxes: (thresholds,).

    At each of 101 recalls the precision is the highest that any recall as high or higher has.
    """
    if not len(matched):
        return torch.zeros(matched.shape[1], dtype=torch.float64)
    right = matched.cpu().double().cumsum(dim=0)
    recall = right / boxes
    precision = right / torch.arange(1, len(right) + 1, dtype=torch.float64)[:, None]
    highest = precision.flip(0).cummax(dim=0).values.flip(0)
    wanted = torch.linspace(0, 1, _RECALLS, dtype=torch.float64)[:, None]
    places = torch.searchsorted(recall.T.contiguous(), wanted.T.expand(recall.shape[1], -1).contiguous())
    padded = torch.cat([highest, torch.zeros(1, highest.shape[1], dtype=torch.float64)])
    return padded.T.gather(1, places).mean(dim=1)
