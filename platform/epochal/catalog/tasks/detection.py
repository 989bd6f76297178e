"""Detection: boxes around the objects on an image, and the class of each.

The target is (boxes, 4), left, top, right and bottom in pixels; the field ``labels`` is (boxes,), 0 where there is no
box and else the class and 1, so that images may have different numbers of boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from epochal.catalog.architectures.detector import Detections
from epochal.catalog.boxes import area, generalized_iou, suppressed
from epochal.catalog.data import Batch, DataInfo
from epochal.catalog.drawing import framed, tiles
from epochal.catalog.entry import Params, TaskEntry
from epochal.catalog.losses import sigmoid_focal
from epochal.catalog.task import Loss, NamedMetrics, Samples, in_fp32
from epochal.errors import EpochalError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torchmetrics import Metric, MetricCollection

Name = Literal["map", "map50", "map75"]
SHOWN_SCORE = 0.3
"""Detections that are less sure are on no picture; the metrics count them."""


class DetectionParams(Params):
    metrics: Annotated[list[Name], Field(min_length=1)] = ["map", "map50"]
    """Mean average precision over ten overlaps from 0.5 to 0.95, at one of 0.5, at one of 0.75: as COCO defines it."""
    radius: Annotated[float, Field(gt=0)] = 1.5
    """Places so near the middle of a box, in strides of their map, are to find it."""
    overlap: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """Of detections of a class that overlap more than this (intersection over union) only the surest is kept."""
    most: Annotated[int, Field(ge=1)] = 100
    """Detections of an image, at most."""


class Detection(NamedMetrics):
    """Outputs as ``architectures.detector.Detections``. The loss of FCOS is a mean over places that are to find a box:
    focal for classes, generalised IoU for boxes, cross entropy for how near the middle a place is.
    """

    known_metrics = get_args(Name)

    def __init__(self, params: DetectionParams, info: DataInfo) -> None:
        self._params = params
        self._info = info
        self._classes = info.more["labels"].width - 1
        self.metric_names = tuple(params.metrics)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        said = self._info.call(model, batch)
        if not isinstance(said, Detections):
            given = type(said).__name__
            raise EpochalError(f"detection needs a model that gives Detections, not a {given}", "use detector")
        label, box, places = wanted(said.places, batch["target"], batch["labels"], self._params.radius)
        found = label > 0
        logits = in_fp32(said.logits)
        hot = F.one_hot(label, self._classes + 1)[..., 1:].to(logits.dtype)
        classes = sigmoid_focal(logits, hot, 2.0, 0.25).sum()
        boxes = (1 - generalized_iou(said.boxes[found].float(), box[found])).sum()
        centres = F.binary_cross_entropy_with_logits(said.centres[found], places[found], reduction="sum")
        logs = {"classes": classes, "boxes": boxes, "centres": centres}
        return Loss(classes + boxes + centres, found.sum(), said, logs)

    def metrics(self) -> MetricCollection:
        from epochal.catalog.detection_metric import MeanAveragePrecision

        known: dict[str, Callable[[], Metric]] = {
            "map": lambda: MeanAveragePrecision(self._classes),
            "map50": lambda: MeanAveragePrecision(self._classes, (0.5,)),
            "map75": lambda: MeanAveragePrecision(self._classes, (0.75,)),
        }
        return self.named(known)

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        metrics.update(detected(outputs, self._params), batch["target"], batch["labels"])

    def pictures(self, samples: Samples) -> Mapping[str, Image | str]:
        """Images with the boxes that are on them, above the same with those that were found."""
        x, labels = samples.batch["input"], samples.batch["labels"]
        if x.dim() != 4:
            return {}
        found = detected(samples.outputs, self._params)
        rows: list[list[Tensor]] = [[], []]
        for image, boxes, kinds, said in zip(x[:12], samples.batch["target"], labels, found, strict=False):
            there, sure = kinds > 0, said[:, 4] >= SHOWN_SCORE
            rows[0].append(framed(image, boxes[there], kinds[there] - 1))
            rows[1].append(framed(image, said[sure, :4], said[sure, 5]))
        return {"boxes": tiles(rows, f"above: the data; below: found with a score of {SHOWN_SCORE} or more")}


def wanted(places: Tensor, target: Tensor, labels: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """What each of ``places`` (batch, places, 3) is to find of the boxes ``target`` (batch, boxes, 4).

    Returns the label (batch, places), 0 for nothing; the box (batch, places, 4); and how near its middle the place is
    (batch, places), from 0 to 1. A place finds the smallest of the boxes that it lies in, near the middle, and that
    have the size of its map: 4 to 8 strides from side to side, larger ones on the coarsest map, smaller on the finest.
    """
    spot, stride = places[:, :, None, :2], places[:, :, None, 2]
    boxes = target[:, None].to(places.dtype)
    sides = torch.cat([spot - boxes[..., :2], boxes[..., 2:] - spot], dim=-1)  # (batch, places, boxes, 4)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    near = ((spot - middle).abs() < radius * stride[..., None]).all(dim=-1)
    longest = sides.amax(dim=-1)
    least = torch.where(stride > stride.amin(dim=1, keepdim=True), 4 * stride, 0)
    most = torch.where(stride < stride.amax(dim=1, keepdim=True), 8 * stride, torch.inf)
    found = near & (sides.amin(dim=-1) > 0) & (longest >= least) & (longest < most) & (labels[:, None] > 0)
    smallest, which = torch.where(found, area(boxes), torch.inf).min(dim=-1)
    box = target.to(places.dtype).gather(1, which[..., None].expand(-1, -1, 4))
    own = sides.gather(2, which[..., None, None].expand(-1, -1, 1, 4))[:, :, 0].clamp_min(1e-6)
    near_middle = (
        (torch.minimum(own[..., :2], own[..., 2:]) / torch.maximum(own[..., :2], own[..., 2:])).prod(-1).sqrt()
    )
    label = torch.where(smallest.isfinite(), labels.gather(1, which), 0)
    return label, box, near_middle


def detected(said: Detections, params: DetectionParams) -> Tensor:
    """The surest of what is said: (batch, most, 6), each left, top, right, bottom, score (0: none) and class."""
    scores = (said.logits.float().sigmoid() * said.centres.float().sigmoid()[..., None]).sqrt().flatten(1)
    classes = said.logits.shape[-1]
    surest, which = scores.topk(min(4 * params.most, scores.shape[1]), dim=1)
    kinds, place = which % classes, which // classes
    boxes = said.boxes.float().gather(1, place[..., None].expand(-1, -1, 4))
    surest = torch.where(suppressed(boxes, kinds, params.overlap), 0.0, surest)
    surest, order = surest.topk(min(params.most, surest.shape[1]), dim=1)
    boxes, kinds = boxes.gather(1, order[..., None].expand(-1, -1, 4)), kinds.gather(1, order)
    return torch.cat([boxes, surest[..., None], kinds[..., None].to(boxes.dtype)], dim=-1)


def build(params: DetectionParams, info: DataInfo) -> Detection:
    if "labels" not in info.more or info.target.shape != (*info.more["labels"].shape, 4):
        told = f"detection needs boxes (boxes, 4) as target, and the field labels; the target is {info.target.shape}"
        raise EpochalError(told, "use the dataset shapes with target: boxes, or one of your own with both")
    return Detection(params, info)


ENTRY = TaskEntry(
    summary="Boxes around what is on an image, and their classes; metrics map, map50 and map75",
    source="Tian et al. 2019, FCOS, https://arxiv.org/abs/1904.01355; COCO, https://cocodataset.org/#detection-eval",
    params=DetectionParams,
    build=build,
)
