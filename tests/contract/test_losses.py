"""What every loss of the catalog does: sums that torch's means follow from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from epochal.catalog.entry import LossEntry
from epochal.catalog.losses import LOSSES

BUILT_IN = [name for name, _ in LOSSES.built_in()]
MODULES = {
    "cross_entropy": nn.CrossEntropyLoss,
    "nll": nn.NLLLoss,
    "multi_margin": nn.MultiMarginLoss,
    "mse": nn.MSELoss,
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
    ("smooth_l1", {"beta": 0.3}),
    ("huber", {"delta": 0.3}),
    ("poisson_nll", {"log_input": True, "full": True}),
]


def _example(entry: LossEntry, batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(batch, 4, generator=generator, requires_grad=True)
    if entry.target_kind == "class":
        return output, torch.arange(batch) % 4
    return output, torch.rand(batch, 4, generator=generator)


@pytest.mark.parametrize(("name", "params"), VARIANTS)
def test_the_sum_over_the_weight_is_torchs_mean(name: str, params: dict[str, Any]) -> None:
    entry = LOSSES.get(name)
    output, target = _example(entry, 9)
    ours = entry.params.model_validate(params)
    weight = entry.weight(ours, target)
    arguments = {("weight" if key == "class_weights" else key): value for key, value in params.items()}
    if "weight" in arguments:
        arguments["weight"] = torch.tensor(arguments["weight"])
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
