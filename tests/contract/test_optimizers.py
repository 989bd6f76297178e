"""What every optimizer of the catalog does."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from epochal.catalog.build import build_optimizer
from epochal.catalog.optimizers import OPTIMIZERS
from epochal.spec.job import Optimizer

BUILT_IN = [name for name, _ in OPTIMIZERS.built_in()]


def _steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
    inputs = torch.randn(16, 5, generator=torch.Generator().manual_seed(1))
    losses = []

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = (model(inputs) - 1).square().mean()
        found.backward()
        return found

    for _ in range(count):
        losses.append(float(optimizer.step(loss).detach()))
    return losses


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(5, 3)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_loss_goes_down_at_the_given_rate(name: str) -> None:
    model = _model()
    optimizer = build_optimizer(Optimizer(name=name, lr=0.01), dict(model.named_parameters()))
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}
    losses = _steps(model, optimizer, 20)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_learning_rate_is_declared_by_the_spec_alone(name: str) -> None:
    assert not set(OPTIMIZERS.get(name).params.model_fields) & set(Optimizer.model_fields)


@pytest.mark.parametrize("name", BUILT_IN)
def test_saved_state_goes_on_exactly(name: str) -> None:
    choice = Optimizer(name=name, lr=0.01)
    model, other = _model(), _model()
    optimizer = build_optimizer(choice, dict(model.named_parameters()))
    _steps(model, optimizer, 3)
    other.load_state_dict(model.state_dict())
    resumed = build_optimizer(choice, dict(other.named_parameters()))
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))  # loading shares tensors that need no conversion
    assert _steps(model, optimizer, 3) == _steps(other, resumed, 3)


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "muon"])  # two of torch's at once
def test_defaults_are_those_of_torch(name: str) -> None:
    optimizer = build_optimizer(Optimizer(name=name), dict(_model().named_parameters()))
    chosen = {"lr", "fused"}  # by the spec, and by the device
    defaults = type(optimizer)(_model().parameters()).defaults  # type: ignore[call-arg]
    own = {key: value for key, value in optimizer.defaults.items() if key not in chosen}
    assert own == {key: value for key, value in defaults.items() if key not in chosen}
