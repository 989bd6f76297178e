"""Optimizers that are more than a name of torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn, optim

from epochal.catalog.build import build_optimizer
from epochal.catalog.index import check
from epochal.errors import SpecError
from epochal.spec.job import Optimizer


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3))


def _trained(model: nn.Module, optimizers: list[optim.Optimizer], steps: int, seed: int = 1) -> list[float]:
    generator, losses = torch.Generator().manual_seed(seed), []
    inputs = torch.randn(20, 6, generator=generator)
    target = torch.randn(20, 3, generator=generator)

    def loss() -> torch.Tensor:
        model.zero_grad()
        found = (model(inputs) - target).square().mean()
        found.backward()
        return found

    for _ in range(steps):
        losses.append(float(optimizers[0].step(loss).detach()))
        for other in optimizers[1:]:
            other.step()
    return losses


def _built(model: nn.Module, **choice: Any) -> optim.Optimizer:
    return build_optimizer(Optimizer(**{"lr": 0.02, **choice}), dict(model.named_parameters()))


def test_muon_is_torchs_for_matrices_and_adamw_for_the_rest() -> None:
    model, other = _model(), _model()
    ours = _built(model, name="muon", adamw=["3.*"])
    named = dict(other.named_parameters())
    settings: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.1}
    muon = optim.Muon([named.pop("0.weight")], adjust_lr_fn="match_rms_adamw", **settings)
    adamw = optim.AdamW(named.values(), betas=(0.9, 0.95), **settings)
    assert _trained(model, [ours], 6) == pytest.approx(_trained(other, [muon, adamw], 6), rel=1e-6)
    assert {key for state in ours.state.values() for key in state} == {
        "momentum_buffer",
        "exp_avg",
        "exp_avg_sq",
        "step",
    }


def test_a_rate_and_a_decay_hold_for_muon_and_for_adamw() -> None:
    groups = [{"parameters": ["0.*"], "lr": 0.5}]
    optimizer = _built(_model(), name="muon", groups=groups, decay_on="matrices")
    told = [(group["by"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert told == [("muon", 0.5, 0.1), ("adamw", 0.5, 0.0), ("muon", 0.02, 0.1), ("adamw", 0.02, 0.0)]


def test_adamw_of_muon_names_matrices() -> None:
    with pytest.raises(SpecError, match=r"no matrix that is trained matches '2\.\*'"):
        _built(_model(), name="muon", adamw=["2.*"])


@pytest.mark.parametrize("search", [True, False], ids=["wolfe", "fixed"])
def test_lbfgs_is_torchs(search: bool) -> None:
    model, other = _model(), _model()
    rate = 1.0 if search else 0.1
    ours = _built(model, name="lbfgs", lr=rate, max_iter=4, history_size=3, line_search=search)
    torchs = optim.LBFGS(
        other.parameters(), rate, max_iter=4, history_size=3, line_search_fn="strong_wolfe" if search else None
    )
    losses = _trained(model, [ours], 8)
    assert losses == pytest.approx(_trained(other, [torchs], 8), rel=1e-3)
    assert losses[-1] < 0.3 * losses[0]


def test_lbfgs_goes_on_exactly_from_its_state() -> None:
    model, other = _model(), _model()
    optimizer, resumed = (_built(one, name="lbfgs", lr=1.0, max_iter=3, history_size=2) for one in (model, other))
    _trained(model, [optimizer], 4)
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict({**optimizer.state_dict()})
    resumed.state = {key: {name: one.clone() for name, one in state.items()} for key, state in resumed.state.items()}
    assert _trained(model, [optimizer], 4, seed=2) == _trained(other, [resumed], 4, seed=2)


def test_lbfgs_has_one_rate() -> None:
    with pytest.raises(SpecError, match="lbfgs treats all parameters alike"):
        _built(_model(), name="lbfgs", groups=[{"parameters": ["0.*"], "lr": 0.5}])


@pytest.mark.parametrize("setting", [{"precision": "fp16"}, {"clip_grad_norm": 1.0}], ids=str)
def test_nothing_changes_the_gradients_that_lbfgs_compares(setting: dict[str, Any]) -> None:
    spec: dict[str, Any] = {"model": {"name": "mlp"}, "data": {"name": "wine"}}
    train: dict[str, Any] = {"optimizer": {"name": "lbfgs"}}
    assert check({**spec, "train": train}) == []
    (problem,) = check({**spec, "train": {**train, **setting}})
    assert problem.path == f"train.{next(iter(setting))}"
    assert problem.message.startswith("lbfgs compares the gradients of several passes")
