"""What a plan counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from epochal.errors import SpecError
from epochal.spec import JobSpec
from epochal.training.plan import Plan, plan

LOOKS_AT_VALUES = """
from torch import nn

class Net(nn.Module):
    def __init__(self, info):
        super().__init__()
        self.layer = nn.Linear(info.input.shape[0], info.target.width)

    def forward(self, x):
        if x.sum().item() > 1e9:
            return self.layer(x) * 2
        return self.layer(x)
"""


def _planned(folder: Path = Path(), train: dict[str, Any] | None = None, **changes: Any) -> Plan:
    tree = {
        "version": 1,
        "name": "test",
        "model": {"name": "mlp", "params": {"hidden": [16]}},
        "data": {"name": "synthetic", "params": {"samples": 125, "shape": [10], "classes": 3}},
        "train": {"epochs": 3, "global_batch_size": 32, **(train or {})},
        **changes,
    }
    return plan(JobSpec.model_validate(tree), folder)


def test_a_linear_model_costs_what_one_counts_by_hand() -> None:
    planned = _planned(model={"name": "mlp", "params": {"hidden": []}})
    assert planned.cost.parameters == 10 * 3 + 3
    # A product forwards, and one backwards for the weights; the data needs no gradient.
    assert planned.cost.flops == 2 * (2 * 32 * 10 * 3)
    assert planned.cost.weights == planned.cost.gradients == 33 * 4


def test_a_plan_tells_what_each_column_is_taken_for(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,y\n1,red,p\n?,blue,q\n3,red,p\n4,red,q\n")
    planned = _planned(tmp_path, data={"name": "csv", "params": {"path": "t.csv", "target": "y"}})
    assert [(one["name"], one["taken_for"], one["missing"]) for one in planned.as_dict()["understood"]] == [
        ("t.csv", "table", 0),
        ("a", "number", 1),
        ("b", "category", 0),
        ("y", "target, class", 0),
    ]
    assert list(planned.as_dict()["classes"]) == [
        {"name": "p", "train": 2, "validation": 0, "test": 0},
        {"name": "q", "train": 2, "validation": 0, "test": 0},
    ]


def test_steps_epochs_and_the_last_short_batch() -> None:
    planned = _planned()
    assert (planned.train_samples, planned.validation_samples) == (100, 25)
    assert (planned.steps_per_epoch, planned.total_steps, planned.epochs) == (4, 12, 3.0)
    by_steps = _planned(train={"epochs": None, "steps": 10})
    assert (by_steps.total_steps, by_steps.epochs) == (10, 2.5)
    assert _planned(train={"global_batch_size": 1000}).global_batch_size == 100


@pytest.mark.parametrize(
    ("optimizer", "per_parameter"),
    [({"name": "sgd"}, 0), ({"name": "sgd", "momentum": 0.9}, 4), ({"name": "adamw"}, 8), ({"name": "asgd"}, 4)],
)
def test_optimizer_state_is_measured(optimizer: dict[str, Any], per_parameter: int) -> None:
    cost = _planned(train={"optimizer": optimizer}).cost
    assert cost.optimizer_state == pytest.approx(per_parameter * cost.parameters, abs=64)


def test_adafactor_holds_less_than_adam() -> None:
    model = {"name": "mlp", "params": {"hidden": [64, 64]}}
    adafactor = _planned(model=model, train={"optimizer": {"name": "adafactor"}}).cost
    assert 0 < adafactor.optimizer_state < _planned(model=model).cost.optimizer_state / 4


def test_frozen_parameters_have_no_gradient_and_no_state() -> None:
    cost = _planned(train={"freeze": ["hidden.*"]}).cost
    assert cost.trainable == 16 * 3 + 3
    assert cost.gradients == cost.trainable * 4
    assert cost.parameters == 10 * 16 + 16 + cost.trainable


def test_workers_share_the_batch_and_fsdp_the_memory() -> None:
    ddp = _planned(resources={"workers": 3, "cpus_per_worker": 2, "memory_per_worker": "1GiB"})
    assert ddp.workers.shares == (11, 10)
    assert ddp.resources.cpus == 6
    assert ddp.resources.memory == 3 * 2**30
    fsdp = _planned(resources={"workers": {"min": 2, "max": 4}, "strategy": "fsdp"})
    assert (fsdp.workers.least, fsdp.workers.count) == (2, 4)
    assert fsdp.workers.bytes_each - fsdp.cost.in_step == pytest.approx(ddp.workers.bytes_each / 4, abs=4)


def test_fsdp_gathers_a_block_at_a_time_and_ddp_copies_all_weights_to_16_bits() -> None:
    model = {"name": "mlp", "params": {"hidden": [2000] * 6}}
    fsdp = {"workers": 4, "strategy": "fsdp"}
    block, rest = 2000 * 2000 + 2000, 10 * 2000 + 2000 + 2000 * 3 + 3
    assert _planned(model=model, resources=fsdp).cost.in_step == 2 * 4 * rest + (4 * 4 + 6) * block
    assert _planned(model=model, resources=fsdp, train={"precision": "bf16"}).cost.in_step == (
        2 * 2 * rest + (4 * 2 + 6) * block
    )
    assert _planned(model=model).cost.in_step == 0
    copied = _planned(model=model, train={"precision": "bf16"}).cost
    assert copied.in_step == 2 * copied.parameters


def test_micro_batches_follow_from_the_busiest_worker() -> None:
    planned = _planned(train={"micro_batch_size": 4}, resources={"workers": 3})
    assert planned.workers.micro_batches == 3


def test_a_batch_norm_that_would_see_a_single_sample_is_refused() -> None:
    normed = {"name": "mlp", "params": {"hidden": [16], "norm": "batch"}}
    with pytest.raises(SpecError, match=r"train\.global_batch_size: leaves a batch of a single sample"):
        _planned(model=normed, train={"global_batch_size": 33})
    assert _planned(model=normed).steps_per_epoch == 4


def test_a_model_that_looks_at_values_is_run_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "looks_at_values.py").write_text(LOOKS_AT_VALUES)
    monkeypatch.syspath_prepend(tmp_path)
    own = _planned(model={"name": "looks_at_values:Net"}, code={"dir": "."})
    same = _planned(model={"name": "mlp", "params": {"hidden": []}})
    assert own.cost == same.cost


def test_a_model_without_parameters_is_to_blame_and_not_what_freezes_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nothing_to_train.py").write_text("from torch import nn\ndef net(info): return nn.Flatten()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpecError, match="model: the model has no parameter to train"):
        _planned(model={"name": "nothing_to_train:net"}, code={"dir": "."})


def test_nothing_is_allocated_for_a_large_model() -> None:
    planned = _planned(model={"name": "mlp", "params": {"hidden": [100_000, 100_000]}})
    assert planned.cost.parameters > 10**10
    assert planned.cost.optimizer_state == pytest.approx(8 * planned.cost.parameters, rel=1e-6)
