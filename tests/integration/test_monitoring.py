"""A real Prometheus scrapes the server, with what the agent tells it, and Ray, while jobs train: nothing that a
dashboard or an alert asks for is missing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from epochal.local.port import is_free
from epochal.server.metric_table import TABLE
from epochal.urls import free_port
from local_services import Here
from monitored import GPUS, KUBERNETES, Prometheus, alerts, panels
from polling import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus"),
]

NEEDS = (GPUS, KUBERNETES)
SWEEP = """
version: 1
name: few
model: {name: mlp}
data: {name: digits}
train: {epochs: 300, global_batch_size: 64, optimizer: {name: adamw}}
resources: {workers: 1}
objective: {metric: val/accuracy, mode: max}
sweep:
  search: {name: random}
  trial_scheduler: {name: none}
  trials: 1000
  concurrency: 1
  space: {train.optimizer.lr: {dist: loguniform, low: 1e-4, high: 1e-1}}
"""


@pytest.fixture
def here() -> Iterator[Here]:
    here = Here()
    yield here
    here.epochal("down", "--now")
    here.until_gone()


def submitted(here: Here, *arguments: str) -> str:
    came = here.epochal("submit", *arguments, "-o", "name")
    assert came.returncode == 0, came.stderr
    return came.stdout.strip()


def test_every_expression_of_dashboards_and_alerts_has_data_while_jobs_run(here: Here, tmp_path: Path) -> None:
    port = free_port()
    services = here.up(2, "--monitoring", "--prometheus-port", str(port))
    assert services.url("prometheus") == f"http://127.0.0.1:{port}"
    prometheus = Prometheus(services.url("prometheus"))

    quickstart = submitted(here, "jobs/quickstart.yaml", "-s", "train.epochs=30000", "-s", "checkpoint.every=20ep")
    prometheus.until_all_have_data([*panels("fleet", *NEEDS), *panels("job"), *alerts(*NEEDS)], quickstart)
    assert {target["labels"]["job"] for target in prometheus.ask("targets")["activeTargets"]} == {"epochal", "ray"}
    assert here.epochal("stop", quickstart, "--wait").returncode in (0, 1)
    until(lambda: not prometheus.has(f'epochal_job_step{{job_id="{quickstart}"}}'), "its gauges are gone")

    (tmp_path / "sweep.yaml").write_text(SWEEP)
    prometheus.until_all_have_data([*panels("sweep")], submitted(here, str(tmp_path / "sweep.yaml")))
    told = set(prometheus.ask("label/__name__/values"))
    ours = {name for name in told if name.startswith("epochal_") and not name.endswith("_created")}
    expected = set(TABLE) - {"epochal_group_nodes"}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in ours} == expected, "all of it, and nothing else"
    loaded = {rule["name"] for group in prometheus.ask("rules")["groups"] for rule in group["rules"]}
    assert loaded >= {name for name, _ in alerts()}

    assert here.epochal("down", "--now").returncode == 0
    assert here.processes() == []
    assert is_free(port)
