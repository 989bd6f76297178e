"""The commands that list the catalog, and `plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from epochal.catalog.index import KINDS, check, entries
from epochal.catalog.providers import PROVIDERS
from epochal.cli.main import main
from epochal.registry import Registry
from epochal.sweeps.check import check as check_sweep
from epochal.sweeps.searchers import SEARCHERS
from epochal.sweeps.trial_schedulers import TRIAL_SCHEDULERS

COMMANDS = {
    "architecture": "models",
    "dataset": "datasets",
    "task": "tasks",
    "optimizer": "optimizers",
    "lr_schedule": "schedules",
    "loss": "losses",
}
JOBS = Path(__file__).parents[3] / "jobs"


@pytest.mark.parametrize("kind", KINDS)
def test_every_entry_is_listed_in_every_format(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = [entry.name for entry in entries(kind)]  # type: ignore[arg-type]
    if kind == "architecture":
        names += [f"{name}/{provider.what}" for name, provider in PROVIDERS.items()]
    assert main([COMMANDS[kind]]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == names
    assert main([COMMANDS[kind], "-o", "name"]) == 0
    assert capsys.readouterr().out.split() == names
    assert main([COMMANDS[kind], "-o", "json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == names
    assert main([COMMANDS[kind], "-o", "yaml"]) == 0
    assert [row["name"] for row in yaml.safe_load(capsys.readouterr().out)] == names


@pytest.mark.parametrize(("kind", "name"), [(kind, entry.name) for kind in KINDS for entry in entries(kind)])
def test_every_entry_is_described_with_an_example_that_checks(
    kind: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([COMMANDS[kind], name]) == 0
    table = capsys.readouterr().out
    assert main([COMMANDS[kind], name, "-o", "json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["example"] in table
    assert check(yaml.safe_load(described["example"])) == []
    for parameter in described["params"]:
        assert parameter["parameter"] in table
        assert parameter["type"]
        assert parameter["description"]


@pytest.mark.parametrize(("command", "name", "field"), [("optimizers", "rprop", "lr"), ("schedules", "step", "warmup")])
def test_fields_of_the_spec_beside_the_name_are_described_too(
    command: str, name: str, field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, name]) == 0
    assert field in [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]


@pytest.mark.parametrize(("command", "table"), [("searchers", SEARCHERS), ("trial-schedulers", TRIAL_SCHEDULERS)])
def test_what_a_sweep_can_name_is_listed_and_described(
    command: str, table: Registry[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "-o", "name"]) == 0
    assert capsys.readouterr().out.split() == list(table)
    for name in table:
        assert main([command, name, "-o", "json"]) == 0
        described = json.loads(capsys.readouterr().out)
        assert described["source"]
        assert all(parameter["description"] and parameter["type"] for parameter in described["params"])
        assert check_sweep(yaml.safe_load(described["example"])) == []
    assert main([command, f"{name}x"]) == 3
    assert f"did you mean {name!r}?" in capsys.readouterr().err


def test_plan_of_a_sweep_shows_the_space_the_rungs_and_the_cost(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(JOBS / "sweeps" / "hyperband.yaml")
    assert main(["plan", file]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train.optimizer.lr", "loguniform", "0.0001", "to", "0.1", "-"] in lines
    assert ["LENGTH", "TRIALS"] in lines
    assert ["at", "a", "time", "as", "many", "as", "the", "cluster", "fits,", "1", "worker", "each,"] in [
        line[:12] for line in lines
    ]
    assert main(["plan", file, "-o", "json"]) == 0
    planned = json.loads(capsys.readouterr().out)["sweep"]
    assert planned["cost"] < planned["full_cost"] == 17 * 9


def test_a_wrong_name_is_not_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "resnett"]) == 3
    assert "did you mean 'resnet'?" in capsys.readouterr().err


def test_plan_shows_values_with_their_origin_and_the_cost(capsys: pytest.CaptureFixture[str]) -> None:
    more = ("-s", "resources.workers=3", "-s", "data.params.test=0.1")
    assert main(["plan", str(JOBS / "quickstart.yaml"), *more]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    counts = lines[lines.index(["NAME", "TRAIN", "VALIDATION", "TEST"]) + 1]
    assert all(int(count) > 0 for count in counts[1:])
    assert ["resources.workers", "3", "--set"] in lines
    assert ["train.precision", "fp32", "default"] in lines
    assert any(line[:2] == ["model.name", "cnn"] and line[2].startswith("quickstart.yaml:") for line in lines)
    assert ["resources", "3", "CPUs,", "0", "GPUs"] in lines


def test_plan_says_that_variables_cost_a_start_of_new_processes(capsys: pytest.CaptureFixture[str]) -> None:
    for name, told in (("OMP_WAIT_POLICY", True), ("GREETING", False)):
        assert main(["plan", str(JOBS / "quickstart.yaml"), "-s", f"env.{name}=passive"]) == 0
        assert (f"in new processes, seconds later than in idle ones, because of {name}" in _flat(capsys)) == told


def _flat(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_plan_as_json_holds_spec_origins_and_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(JOBS / "quickstart.yaml"), "-o", "json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["plan"]["cost"]["parameters"] == 53_002
    assert planned["plan"]["workers"]["shares"] == [16, 16]
    assert planned["spec"]["model"]["name"] == "cnn"
    assert planned["origins"]["train.seed"] == "default"


def test_plan_finds_the_users_own_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "planned_nets.py").write_text(
        "from torch import nn\n\nclass Net(nn.Sequential):\n    def __init__(self, info):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, info.target.width))\n"
    )
    spec = {"version": 1, "name": "own", "model": {"name": "planned_nets:Net"}, "data": {"name": "digits"}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({**spec, "train": {"epochs": 1}, "code": {"dir": "."}}))
    assert main(["plan", str(tmp_path / "job.yaml"), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["cost"]["parameters"] == 650


def test_plan_prints_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.yaml").write_text(
        "version: 1\nname: x\nmodel: {name: cn}\ndata: {name: digitz}\ntrain: {epochs: 0}\n"
    )
    assert main(["plan", str(tmp_path / "job.yaml")]) == 2
    said = capsys.readouterr().err
    assert "job.yaml:3" in said
    assert "job.yaml:4" in said
    assert "job.yaml:5" in said
