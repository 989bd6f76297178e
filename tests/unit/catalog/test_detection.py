"""Detection: what the places are to find, what is kept of what they say, and how that is measured."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from epochal.catalog.architectures.detector import Detections, detection_target
from epochal.catalog.boxes import generalized_iou, iou, suppressed
from epochal.catalog.build import build_model
from epochal.catalog.data import DataInfo, Field
from epochal.catalog.detection_metric import THRESHOLDS, MeanAveragePrecision, average_precision
from epochal.catalog.tasks.detection import DetectionParams, detected, wanted
from epochal.errors import SpecError
from epochal.spec.section import Component


def _boxes(*corners: list[float]) -> Tensor:
    return torch.tensor([*corners], dtype=torch.float32)


def test_overlaps_of_boxes() -> None:
    one, half, apart = _boxes([0, 0, 4, 4])[0], _boxes([2, 0, 6, 4])[0], _boxes([6, 0, 8, 4])[0]
    assert iou(one, one) == 1
    assert iou(one, half) == pytest.approx(8 / 24)
    assert iou(one, apart) == 0
    assert generalized_iou(one, half) == pytest.approx(8 / 24)
    assert generalized_iou(one, apart) == pytest.approx(-8 / 32)


def test_of_detections_that_overlap_the_surest_of_a_class_is_kept() -> None:
    boxes = _boxes([0, 0, 4, 4], [0, 0, 4, 5], [0, 0, 4, 4], [0, 0, 4, 7])[None]
    # The second meets the first; the third is of another class; the fourth meets the second alone, which is gone.
    kinds = torch.tensor([[0, 0, 1, 0]])
    assert suppressed(boxes, kinds, 0.6).tolist() == [[False, True, False, False]]


def test_a_place_finds_the_smallest_box_near_whose_middle_it_lies() -> None:
    places = torch.tensor([[x, y, 4.0] for y in (2, 6, 10, 14) for x in (2, 6, 10, 14)])[None]
    target = _boxes([0, 0, 16, 16], [8, 8, 12, 12], [0, 0, 0, 0])[None]
    label, box, middle = wanted(places, target, torch.tensor([[1, 2, 0]]), radius=1.0)
    found = label[0].reshape(4, 4).tolist()
    assert found == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 2, 0], [0, 0, 0, 0]]
    assert box[0, 10].tolist() == [8, 8, 12, 12]
    assert middle[0, 10] == 1.0
    assert middle[0, 5] == pytest.approx(6 / 10)  # the root of 6 / 10 to the sides times 6 / 10 above and below


def test_a_box_is_found_on_the_map_of_its_size() -> None:
    places = torch.tensor([[16.0, 16.0, stride] for stride in (4.0, 8.0, 16.0)])[None]
    for half, expected in ((10.0, [1, 0, 0]), (40.0, [0, 1, 0]), (100.0, [0, 0, 1]), (1000.0, [0, 0, 1])):
        target = _boxes([16 - half, 16 - half, 16 + half, 16 + half])[None]
        assert wanted(places, target, torch.tensor([[1]]), radius=1.5)[0][0].tolist() == expected


def test_what_is_said_becomes_detections_the_surest_first() -> None:
    logits = torch.tensor([[[9.0, -9.0], [-9.0, 3.0], [3.0, -9.0]]])
    boxes = _boxes([0, 0, 8, 8], [4, 4, 9, 9], [0, 0, 8, 7])[None]
    said = Detections(logits, boxes, torch.tensor([[9.0, 9.0, 9.0]]), torch.zeros(1, 3, 3))
    found = detected(said, DetectionParams(most=2))
    assert found[0, :, :4].tolist() == [[0, 0, 8, 8], [4, 4, 9, 9]]
    assert found[0, :, 5].tolist() == [0, 1]
    assert found[0, 1, 4] == pytest.approx(float(torch.tensor(3.0).sigmoid() ** 0.5), abs=1e-3)


def test_average_precision_is_the_mean_over_recalls() -> None:
    # Right, wrong, right, of two boxes: precision 1 up to a recall of 1/2 (51 of 101), then 2/3.
    matched = torch.tensor([[True], [False], [True]])
    assert average_precision(matched, 2).item() == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert average_precision(matched[:2], 2).item() == pytest.approx(51 / 101)
    assert average_precision(matched[:0], 2).item() == 0


def _detections(*rows: list[float]) -> Tensor:
    """One image's, filled up with none."""
    return torch.tensor([*rows, *[[0.0] * 6] * (4 - len(rows))])[None]


def test_detections_find_each_box_once() -> None:
    metric = MeanAveragePrecision(2, thresholds=(0.5,))
    target, labels = _boxes([0, 0, 10, 10], [20, 20, 30, 30])[None], torch.tensor([[1, 1]])
    twice = _detections([0, 0, 10, 10, 0.9, 0], [0, 0, 10, 9, 0.8, 0], [20, 20, 30, 30, 0.7, 0])
    metric.update(twice, target, labels)
    assert metric.compute() == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_thresholds_tell_how_exact_a_box_is() -> None:
    metric = MeanAveragePrecision(1)
    metric.update(_detections([0, 0, 10, 7.4, 0.9, 0]), _boxes([0, 0, 10, 10])[None], torch.tensor([[1]]))
    assert metric.compute() == pytest.approx(0.5)  # at 0.5, 0.55, 0.6, 0.65 and 0.7


def test_classes_count_alike_and_those_without_boxes_do_not() -> None:
    metric = MeanAveragePrecision(3, thresholds=(0.5,))
    target, labels = _boxes([0, 0, 10, 10], [20, 20, 30, 30])[None], torch.tensor([[1, 2]])
    # The second's class is wrong; the third finds nothing, in a class without boxes.
    found = _detections([0, 0, 10, 10, 0.9, 0], [20, 20, 30, 30, 0.8, 0], [0, 0, 5, 5, 0.7, 2])
    metric.update(found, target, labels)
    assert metric.compute() == pytest.approx(0.5)


def test_images_are_measured_together() -> None:
    """What is surest over all images counts first, however they came."""
    target, labels = _boxes([0, 0, 10, 10])[None], torch.tensor([[1]])
    right, wrong = _detections([0, 0, 10, 10, 0.6, 0]), _detections([50, 50, 60, 60, 0.9, 0])
    for images in ([right, wrong], [wrong, right]):
        metric = MeanAveragePrecision(1, thresholds=(0.5,))
        for image in images:
            metric.update(image, target, labels)
        assert metric.compute() == pytest.approx(0.5 * 51 / 101)


def test_each_threshold_takes_the_boxes_that_are_left_to_it() -> None:
    """As one after the other, detection by detection: what is done for all thresholds at once finds the same."""
    generator = torch.Generator().manual_seed(0)
    metric = MeanAveragePrecision(3)
    corner = 20 * torch.rand(6, 2, generator=generator)
    boxes, kinds = torch.cat([corner, corner + 10], 1), torch.randint(3, (6,), generator=generator)
    found = torch.zeros(60, 6)
    found[:, :4] = boxes.repeat(10, 1) + 2 * torch.randn(60, 4, generator=generator)
    found[:, 4], found[:, 5] = torch.linspace(1, 0.1, 60), torch.randint(3, (60,), generator=generator)
    one_by_one = torch.zeros(60, len(THRESHOLDS), dtype=torch.bool)
    for column, least in enumerate(THRESHOLDS):
        left = set(range(6))
        for row in range(60):
            meet = {box: float(iou(found[row, :4], boxes[box])) for box in left if kinds[box] == found[row, 5]}
            if meet and meet[best := max(meet, key=meet.__getitem__)] >= least:
                one_by_one[row, column] = True
                left.remove(best)
    assert one_by_one.sum(0).tolist() == sorted(one_by_one.sum(0).tolist(), reverse=True)
    assert 0 < one_by_one.sum() < one_by_one[:, 0].sum() * len(THRESHOLDS)
    assert torch.equal(metric._matches(found, boxes, kinds), one_by_one)


def test_no_boxes_at_all_have_no_precision() -> None:
    metric = MeanAveragePrecision(1)
    metric.update(_detections(), torch.zeros(1, 1, 4), torch.tensor([[0]]))
    assert metric.compute() == -1


def test_the_detector_is_torchvisions() -> None:
    """https://docs.pytorch.org/vision/stable/models.html: fcos_resnet50_fpn, whose batch norms are not trained."""
    target, labels = detection_target(3, classes=91)
    params = {"backbone": "resnet50", "width": 256, "depth": 4}
    with torch.device("meta"):
        model = build_model(
            Component(name="detector", params=params), DataInfo(Field((3, 64, 64)), target, {"labels": labels})
        )
    norms = sum(
        one.numel() for part in model.modules() if isinstance(part, nn.BatchNorm2d) for one in part.parameters()
    )
    assert sum(one.numel() for one in model.parameters()) - norms == 32_269_600
    said = model(torch.zeros(2, 3, 100, 80, device="meta"))
    assert said.logits.shape == (2, 13 * 10 + 7 * 5 + 4 * 3 + 2 * 2 + 1, 91)


def test_places_are_where_the_maps_see() -> None:
    target, labels = detection_target(2, classes=3)
    model = build_model(Component(name="detector"), DataInfo(Field((3, 16, 8)), target, {"labels": labels}))
    said = model(torch.zeros(1, 3, 16, 8))
    fine = [[x, y, 4] for y in (2, 6, 10, 14) for x in (2, 6)]
    assert said.places[0].tolist() == [*fine, [4, 4, 8], [4, 12, 8]]
    middle = (said.boxes[..., :2] < said.places[..., :2]) & (said.places[..., :2] < said.boxes[..., 2:])
    assert middle.all()


def test_data_without_boxes_is_refused() -> None:
    with pytest.raises(SpecError, match="detector needs boxes"):
        build_model(Component(name="detector"), DataInfo(Field((3, 16, 16)), Field((), torch.int64, 3)))
