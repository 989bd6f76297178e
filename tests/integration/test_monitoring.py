"""A real Prometheus scrapes the server, with what the agent tells it, and Ray, while jobs train: nothing that a
dashboard or an alert asks for is missing."""

from __future__ import annotations

import json
import re
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from epochal.local.port import is_free
from epochal.server.metric_table import TABLE
from epochal.urls import free_port
from local_services import ROOT, Here
from polling import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus"),
]

DASHBOARDS = sorted((ROOT / "dashboards").glob("*.json"))
NEEDS_GPUS = "Needs GPUs"
SWEEP = """
version: 1
name: few
model: {name: mlp}
data: {name: digits}
train: {epochs: 1000, global_batch_size: 64, optimizer: {name: adamw}}
resources: {workers: 1}
objective: {metric: val/accuracy, mode: max}
sweep:
  search: {name: random}
  trial_scheduler: {name: none}
  trials: 100
  concurrency: 1
  space: {train.optimizer.lr: {dist: loguniform, low: 1e-4, high: 1e-1}}
"""


class Prometheus:
    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, path: str, **query: str) -> Any:
        asked = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def has(self, expression: str) -> bool:
        """Whether it has a value now, a number."""
        values = [sample["value"][1] for sample in self.ask("query", query=expression)["result"]]
        return any(value != "NaN" for value in values)


@pytest.fixture
def here() -> Iterator[Here]:
    here = Here()
    yield here
    here.epochal("down", "--now")
    here.until_gone()


def panels(dashboard: Path) -> Iterator[tuple[str, str]]:
    """What each panel asks for, but for those that say that they need GPUs."""
    for panel in json.loads(dashboard.read_text(encoding="utf-8"))["panels"]:
        if NEEDS_GPUS not in panel.get("description", ""):
            for target in panel.get("targets", ()):
                yield f"{dashboard.stem}: {panel['title']}", target["expr"]


def alerts() -> Iterator[tuple[str, str]]:
    """What each alert compares: all that is compared is there, whether or not it is too much."""
    rules = yaml.safe_load((ROOT / "dashboards" / "prometheus" / "rules.yaml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            if NEEDS_GPUS not in rule["annotations"].get("description", ""):
                compared = re.sub(r"(>=|==|>|<)(?= )", r"\1 bool", rule["expr"])
                inner = re.sub(r"^absent\((.*)\)$", r"\1", compared)
                yield rule["alert"], re.sub(r"offset \d+m", "offset 5s", inner)


def submitted(here: Here, *arguments: str) -> str:
    came = here.epochal("submit", *arguments, "-o", "name")
    assert came.returncode == 0, came.stderr
    return came.stdout.strip()


def test_every_expression_of_dashboards_and_alerts_has_data_while_jobs_run(here: Here, tmp_path: Path) -> None:
    port = free_port()
    services = here.up(2, "--monitoring", "--prometheus-port", str(port))
    assert services.url("prometheus") == f"http://127.0.0.1:{port}"
    prometheus = Prometheus(services.url("prometheus"))

    def missing(asked: list[tuple[str, str]], job_id: str) -> list[tuple[str, str]]:
        filled = [
            (name, expression.replace("$job_id", job_id).replace("$__rate_interval", "1m"))
            for name, expression in asked
        ]
        return [one for one in filled if not prometheus.has(one[1])]

    def until_all_are_there(asked: list[tuple[str, str]], job_id: str) -> None:
        left: list[tuple[str, str]] = []

        def are_there() -> bool:
            left[:] = missing(asked, job_id)
            return not left

        try:
            until(are_there, "all have data", 120.0)
        except AssertionError as error:
            raise AssertionError(f"without data: {left}") from error

    quickstart = submitted(here, "jobs/quickstart.yaml", "-s", "train.epochs=3000", "-s", "checkpoint.every=20ep")
    fleet, job, sweep = ([*panels(ROOT / "dashboards" / f"{name}.json")] for name in ("fleet", "job", "sweep"))
    until_all_are_there([*fleet, *job, *alerts()], quickstart)
    assert {target["labels"]["job"] for target in prometheus.ask("targets")["activeTargets"]} == {"epochal", "ray"}
    assert here.epochal("stop", quickstart, "--wait").returncode in (0, 1)
    until(lambda: not prometheus.has(f'epochal_job_step{{job_id="{quickstart}"}}'), "its gauges are gone", 30.0)

    (tmp_path / "sweep.yaml").write_text(SWEEP)
    until_all_are_there(sweep, submitted(here, str(tmp_path / "sweep.yaml")))
    told = set(prometheus.ask("label/__name__/values"))
    ours = {name for name in told if name.startswith("epochal_") and not name.endswith("_created")}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in ours} == set(TABLE), "all of it, and nothing else"
    loaded = {rule["name"] for group in prometheus.ask("rules")["groups"] for rule in group["rules"]}
    assert loaded >= {name for name, _ in alerts()}

    assert here.epochal("down", "--now").returncode == 0
    assert here.processes() == []
    assert is_free(port)
