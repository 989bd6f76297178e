"""A sweep in MLflow's own pages: the children below their parent, and the comparison with parallel coordinates."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from chromium import Page
from epochal.sweeps.finding import Finding
from epochal.sweeps.report import html
from epochal.sweeps.trials import Measured, Trial, TrialState
from epochal.tracking.desired_run import DesiredRun
from epochal.tracking.pages import comparison_page, runs_page
from epochal.tracking.runs import get_run, trial_runs
from epochal.tracking.syncer import sync
from epochal.tracking.trial_runs import TrialRuns

pytestmark = pytest.mark.slow

PARAMS = {
    "model.name": "mlp",
    "data.name": "digits",
    "objective.metric": "val/accuracy",
    "objective.mode": "max",
}


def trials() -> list[Trial]:
    draw = random.Random(0)
    made = []
    for number in range(24):
        lr, width = 10 ** draw.uniform(-4, -1), draw.choice([16, 32, 64])
        last = 9 if number % 3 == 0 else 3
        curve = tuple(Measured(float(n), 0.9 - 0.3 / n - lr + width / 1000) for n in range(1, last + 1))
        state = TrialState.COMPLETED if last == 9 else TrialState.STOPPED
        made.append(Trial(number, {"train.optimizer.lr": lr, "model.params.width": width}, state, 9.0, curve))
    return made


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, mlflow: str) -> str:
    """The id of the sweep's job, whose trials are in MLflow."""
    folder = tmp_path_factory.mktemp("sweeps") / "jobs" / "digits-sweep"
    DesiredRun(job_id=folder.name, experiment="digits", name="search", params=PARAMS).save(folder)
    runs = TrialRuns(folder)
    for trial in trials():
        runs.record(trial)
    DesiredRun.load(folder).changed(status="FINISHED").save(folder)
    while sync(mlflow, folder).pending:
        pass
    return folder.name


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    return open_page()


def visible(page: Page) -> list[WebElement]:
    """The buttons in the table of runs."""
    return [one for one in page.all("[role='row'] button") if one.is_displayed()]


def test_the_children_are_below_their_parent(page: Page, mlflow: str, sweep: str) -> None:
    parent = get_run(mlflow, sweep)
    page.driver.get(runs_page(mlflow, parent.experiment_id))
    page.wait(lambda: "search" in page.text("body"), "the sweep's run")
    page.wait(lambda: visible(page), "the button that opens it")
    assert "search-trial-" not in page.text("body")
    visible(page)[0].click()
    page.wait(lambda: "search-trial-23" in page.text("body"), "its newest trial")
    page.shoot("sweep-in-mlflow")


def test_the_comparison_draws_parallel_coordinates(page: Page, mlflow: str, sweep: str) -> None:
    found = trial_runs(mlflow, get_run(mlflow, sweep))
    page.driver.get(comparison_page(mlflow, [(run.id, run.experiment_id) for run in found]))
    page.wait(lambda: "Comparing 24 Runs" in page.text("body"), "the comparison")
    page.wait(lambda: "Parallel Coordinates" in page.text("body"), "the kind of picture")
    page.wait(lambda: page.driver.find_elements(By.CSS_SELECTOR, ".js-plotly-plot .parcoords, .parcoords"), "the lines")
    assert "train.optimizer.lr" in page.text("body")
    assert "model.params.width" in page.text("body")
    page.shoot("sweep-comparison")


def test_the_report_opens(page: Page, tmp_path: Path) -> None:
    made = Finding("digits", "val/accuracy", "max", 9.0, "epochs", "random search", tuple(trials()))
    file = tmp_path / "report.html"
    file.write_text(html(made, "digits-sweep"), encoding="utf-8")
    page.driver.get(file.as_uri())
    assert page.text("h1") == "Sweep digits"
    assert len(page.all("svg")) == 3
    assert all(one.size["height"] > 50 for one in page.all("svg"))
    assert page.complaints() == []
    page.shoot("sweep-report")
