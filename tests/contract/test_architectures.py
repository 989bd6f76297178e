"""What every architecture of the catalog does; a new one is covered by its line in the table."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from epochal.catalog.architectures import ARCHITECTURES
from epochal.catalog.data import Batch
from epochal.catalog.entry import Architecture
from epochal.catalog.index import entry as index_entry

BUILT_IN = [name for name, _ in ARCHITECTURES.built_in()]
JUDGE = ARCHITECTURES.get("dcgan")
"""The other half of it, which makes what this one judges, is not called by its forward."""
SMALL: dict[str, dict[str, Any]] = {"ddpm": {"channels": 32}}
"""Those whose defaults take long, and are the same in all that is looked at here but the count of their parameters."""


@pytest.fixture(params=BUILT_IN)
def entry(request: pytest.FixtureRequest) -> Architecture:
    return ARCHITECTURES.get(request.param)


@pytest.fixture
def build(entry: Architecture, request: pytest.FixtureRequest) -> Callable[[], nn.Module]:
    params = entry.params(**SMALL.get(request.node.callspec.params["entry"], {}))
    return lambda: entry.build(params, entry.example)


@pytest.fixture
def model(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build()


def _outputs(entry: Architecture, model: nn.Module, batch: Batch) -> list[Tensor]:
    """What it gives for the batch: one tensor, unless it has outputs of its own."""
    outputs: list[Tensor] = tree_leaves(entry.example.call(model, batch))
    return outputs


def test_outputs_have_the_targets_width(entry: Architecture, model: nn.Module) -> None:
    outputs = _outputs(entry, model, entry.example.example(3))
    assert all(len(output) == 3 and output.isfinite().all() for output in outputs)
    if not entry.own_outputs:
        assert [output.flatten(1).shape[1] for output in outputs] == [prod(entry.example.target.predicted)]


def test_backward_reaches_every_parameter(entry: Architecture, model: nn.Module) -> None:
    torch.stack([one.square().sum() for one in _outputs(entry, model, entry.example.example(3))]).sum().backward()
    called = model.get_submodule("discriminator") if entry is JUDGE else model
    untouched = [name for name, p in called.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert untouched == []


def test_an_empty_batch_gives_zero_gradients_and_leaves_the_state_finite(entry: Architecture, model: nn.Module) -> None:
    outputs, others = (_outputs(entry, model, entry.example.example(size)) for size in (0, 1))
    assert [output.shape for output in outputs] == [(0, *other.shape[1:]) for other in others]
    torch.stack([output.sum() for output in outputs]).sum().backward()
    called = model.get_submodule("discriminator") if entry is JUDGE else model
    assert all(p.grad is not None and not p.grad.any() for p in called.parameters())
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_the_meta_device_builds_what_the_index_counts(entry: Architecture, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["entry"]
    with torch.device("meta"):
        model = entry.build(entry.params(), entry.example)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert sum(p.numel() for p in model.parameters()) == index_entry("architecture", name).parameter_count


def test_the_meta_device_runs_it_without_memory(entry: Architecture, build: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        model = build()
    outputs = _outputs(entry, model, {name: one.to("meta") for name, one in entry.example.example(4).items()})
    assert all(len(output) == 4 for output in outputs)
    torch.stack([output.sum() for output in outputs]).sum().backward()


def test_saved_state_makes_the_same_model(
    entry: Architecture, build: Callable[[], nn.Module], model: nn.Module
) -> None:
    other = build()
    other.load_state_dict(model.state_dict(), strict=True)
    batch = entry.example.example(2)
    torch.testing.assert_close(
        _outputs(entry, model.eval(), batch), _outputs(entry, other.eval(), batch), rtol=0, atol=0
    )


def test_the_same_seed_builds_the_same_weights(build: Callable[[], nn.Module], model: nn.Module) -> None:
    torch.manual_seed(0)
    again = build()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_bf16_is_close_to_fp32(entry: Architecture, model: nn.Module) -> None:
    batch = entry.example.example(2)
    model.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = [output.float() for output in _outputs(entry, model, batch)]
    assert all(output.isfinite().all() for output in low)
    torch.testing.assert_close(low, _outputs(entry, model, batch), rtol=0.1, atol=0.1)


def test_a_sample_does_not_depend_on_the_others_in_evaluation(entry: Architecture, model: nn.Module) -> None:
    batch = entry.example.example(3)
    first = {name: tensor[:1] for name, tensor in batch.items()}
    model.eval()
    together = [output[:1] for output in _outputs(entry, model, batch)]
    torch.testing.assert_close(together, _outputs(entry, model, first), rtol=1e-4, atol=1e-5)
