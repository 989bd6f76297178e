"""What every loss of the catalog does: sums that torch's means follow from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from epochal.catalog.entry import LossEntry
from epochal.catalog.losses import LOSSES

BUILT_IN = [name for name, _ in LOSSES.built_in()]


class Focal(nn.Module):
    """The paper's formula, with torch's mean of weighted samples."""

    def __init__(self, gamma: float = 2.0, weight: Tensor | None = None) -> None:
        super().__init__()
        self.gamma, self.weight = gamma, torch.ones(4) if weight is None else weight

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        p = output.softmax(1)[torch.arange(len(target)), target]
        weight = self.weight[target]
        return (-weight * (1 - p) ** self.gamma * p.log()).sum() / weight.sum()


class SigmoidFocal(nn.Module):
    """The paper's formula, as ``torchvision.ops.sigmoid_focal_loss``."""

    def __init__(self, gamma: float = 2.0, alpha: float | None = None) -> None:
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        p = output.sigmoid()
        ones, zeros = (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)
        of_ones = ones * (1 - p) ** self.gamma * p.log()
        of_zeros = zeros * p**self.gamma * (1 - p).log()
        return -(target * of_ones + (1 - target) * of_zeros).mean()


class CategoricalHinge(nn.Module):
    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        worst = [
            max(self.margin + row[other] - row[own] for other in range(4) if other != own).clamp(min=0)
            for row, own in zip(output, target.tolist(), strict=True)
        ]
        return torch.stack(worst).mean()


MODULES = {
    "cross_entropy": nn.CrossEntropyLoss,
    "nll": nn.NLLLoss,
    "multi_margin": nn.MultiMarginLoss,
    "focal": Focal,
    "categorical_hinge": CategoricalHinge,
    "sigmoid_focal": SigmoidFocal,
    "mse": nn.MSELoss,
    "mae": nn.L1Loss,
    "l1": nn.L1Loss,
    "smooth_l1": nn.SmoothL1Loss,
    "huber": nn.HuberLoss,
    "poisson_nll": nn.PoissonNLLLoss,
    "bce_with_logits": nn.BCEWithLogitsLoss,
}
WEIGHTS = [0.5, 2.0, 1.0, 0.0]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in BUILT_IN),
    ("cross_entropy", {"label_smoothing": 0.2}),
    ("cross_entropy", {"label_smoothing": 0.2, "class_weights": WEIGHTS}),
    ("nll", {"class_weights": WEIGHTS}),
    ("multi_margin", {"p": 2, "margin": 0.3, "class_weights": WEIGHTS}),
    ("focal", {"gamma": 0.5}),
    ("focal", {"gamma": 3.0, "class_weights": WEIGHTS}),
    ("categorical_hinge", {"margin": 0.2}),
    ("bce_with_logits", {"pos_weight": WEIGHTS}),
    ("sigmoid_focal", {"gamma": 0.0}),
    ("sigmoid_focal", {"gamma": 1.5, "alpha": 0.25}),
    ("smooth_l1", {"beta": 0.3}),
    ("huber", {"delta": 0.3}),
    ("poisson_nll", {"log_input": True, "full": True}),
]


def _example(entry: LossEntry, batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(batch, 4, generator=generator, requires_grad=True)
    if entry.target_kind == "class":
        return output, torch.arange(batch) % 4
    values = torch.rand(batch, 4, generator=generator)
    return output, values.round() if entry is LOSSES.get("sigmoid_focal") else values


@pytest.mark.parametrize(("name", "params"), VARIANTS)
def test_the_sum_over_the_weight_is_torchs_mean(name: str, params: dict[str, Any]) -> None:
    entry = LOSSES.get(name)
    output, target = _example(entry, 9)
    ours = entry.params.model_validate(params)
    weight = entry.weight(ours, target)
    arguments = {("weight" if key == "class_weights" else key): value for key, value in params.items()}
    if "weight" in arguments:
        arguments["weight"] = torch.tensor(arguments["weight"])
    if "pos_weight" in arguments:
        arguments["pos_weight"] = torch.tensor(arguments["pos_weight"])
    expected = MODULES[name](**arguments)(output, target)
    torch.testing.assert_close(entry.build(ours, output, target) / (9 if weight is None else weight), expected)


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_empty_batch_gives_a_zero_with_a_gradient(name: str) -> None:
    entry = LOSSES.get(name)
    output, target = _example(entry, 0)
    total = entry.build(entry.params(), output, target)
    total.backward()
    assert total == 0
    assert output.grad is not None


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_sum_is_the_sum_of_its_parts(name: str) -> None:
    entry = LOSSES.get(name)
    output, target = _example(entry, 8)
    whole = entry.build(entry.params(), output, target)
    parts = [entry.build(entry.params(), output[part], target[part]) for part in (slice(0, 3), slice(3, 8))]
    torch.testing.assert_close(whole, parts[0] + parts[1])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("name", ["focal", "sigmoid_focal"])
def test_a_focal_loss_of_what_a_model_is_sure_of_has_a_finite_gradient(name: str, gamma: float) -> None:
    entry = LOSSES.get(name)
    output = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    target = torch.tensor([0, 0]) if entry.target_kind == "class" else torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    entry.build(entry.params.model_validate({"gamma": gamma}), output, target).backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_a_focal_loss_without_focus_is_cross_entropy() -> None:
    output, target = _example(LOSSES.get("focal"), 7)
    focal, entropy = LOSSES.get("focal"), LOSSES.get("cross_entropy")
    found = focal.build(focal.params.model_validate({"gamma": 0.0}), output, target)
    torch.testing.assert_close(found, entropy.build(entropy.params(), output, target))
