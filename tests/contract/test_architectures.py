"""What every architecture of the catalog does; a new one is covered by its line in the table."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import nn

from epochal.catalog.architectures import ARCHITECTURES
from epochal.catalog.entry import Architecture
from epochal.catalog.index import entry as index_entry

BUILT_IN = [name for name, _ in ARCHITECTURES.built_in()]


@pytest.fixture(params=BUILT_IN)
def entry(request: pytest.FixtureRequest) -> Architecture:
    return ARCHITECTURES.get(request.param)


@pytest.fixture
def model(entry: Architecture) -> nn.Module:
    torch.manual_seed(0)
    return entry.build(entry.params(), entry.example)


def test_outputs_have_the_targets_width(entry: Architecture, model: nn.Module) -> None:
    output = model(entry.example.example(3)["input"])
    assert output.reshape(3, -1).shape[1] == prod(entry.example.target.predicted)
    assert output.isfinite().all()


def test_backward_reaches_every_parameter(entry: Architecture, model: nn.Module) -> None:
    model(entry.example.example(3)["input"]).square().sum().backward()
    untouched = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert untouched == []


def test_an_empty_batch_gives_zero_gradients_and_leaves_the_state_finite(entry: Architecture, model: nn.Module) -> None:
    output = model(entry.example.example(0)["input"])
    assert output.shape[0] == 0
    assert output.shape[1:] == model(entry.example.example(1)["input"]).shape[1:]
    output.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_the_meta_device_builds_what_the_index_counts(entry: Architecture, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["entry"]
    with torch.device("meta"):
        model = entry.build(entry.params(), entry.example)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert sum(p.numel() for p in model.parameters()) == index_entry("architecture", name).parameter_count


def test_the_meta_device_runs_it_without_memory(entry: Architecture) -> None:
    with torch.device("meta"):
        model = entry.build(entry.params(), entry.example)
    output = model(entry.example.example(4)["input"].to("meta"))
    assert output.flatten(1).shape == (4, prod(entry.example.target.predicted))
    output.sum().backward()


def test_saved_state_makes_the_same_model(entry: Architecture, model: nn.Module) -> None:
    other = entry.build(entry.params(), entry.example)
    other.load_state_dict(model.state_dict(), strict=True)
    inputs = entry.example.example(2)["input"]
    torch.testing.assert_close(model.eval()(inputs), other.eval()(inputs), rtol=0, atol=0)


def test_the_same_seed_builds_the_same_weights(entry: Architecture, model: nn.Module) -> None:
    torch.manual_seed(0)
    again = entry.build(entry.params(), entry.example)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_bf16_is_close_to_fp32(entry: Architecture, model: nn.Module) -> None:
    inputs = entry.example.example(2)["input"]
    model.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(inputs)
    assert low.isfinite().all()
    torch.testing.assert_close(low.float(), model(inputs), rtol=0.1, atol=0.1)


def test_a_sample_does_not_depend_on_the_others_in_evaluation(entry: Architecture, model: nn.Module) -> None:
    inputs = entry.example.example(3)["input"]
    model.eval()
    torch.testing.assert_close(model(inputs)[:1], model(inputs[:1]), rtol=1e-4, atol=1e-5)
