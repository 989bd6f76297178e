"""From our page to MLflow's own: a run, the runs of its experiment, and three runs compared, each with one click."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from chromium import Page
from epochal.ledger.states import JobState, Reason
from epochal.tracking.desired_run import DesiredRun
from epochal.tracking.metric_spool import MetricSpool
from epochal.tracking.syncer import sync
from running_server import RunningServer, settings_in

NAMES = ("slow-lr", "good-lr", "wild-lr")


@dataclass
class Recorded:
    """A server with three jobs that have ended, whose runs are in MLflow."""

    server: RunningServer
    secret: str
    runs: dict[str, str]
    """Run ids by the jobs' names."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, mlflow: str) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("recorded")
    with RunningServer(settings_in(folder, mlflow_uri=mlflow)) as server:
        secret = server.ledger.create_token("anna", "user")[1]
        runs = {name: record(server, mlflow, folder / name, rate) for name, rate in zip(NAMES, (1, 2, 3), strict=True)}
        yield Recorded(server, secret, runs)


def record(server: RunningServer, mlflow: str, folder: Path, rate: int) -> str:
    """A job that has trained, and its run."""
    ledger = server.ledger
    spec = {"version": 1, "model": {"name": "cnn"}, "resources": {"workers": 1}}
    job = ledger.submit(spec, name=folder.name, submitted_by="anna")
    lease = ledger.lease("cluster-a/1", 600, job.id)
    assert lease is not None
    ledger.running(lease, world_size=1)
    params = {"train.optimizer.lr": f"0.{rate}"}
    made = DesiredRun(job_id=job.id, experiment="digits", name=folder.name, params=params)
    made.changed(status="FINISHED").save(folder)
    writer = MetricSpool(folder, "attempt-1-rank-0")
    for step in range(20):
        writer.log(step, {"train/loss": rate / (step + 1)})
    writer.close()
    synced = sync(mlflow, folder)
    ledger.set_run(lease, synced.run_id, mlflow, synced.experiment_id)
    ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
    return synced.run_id


@pytest.fixture
def page(open_page: Callable[..., Page], recorded: Recorded) -> Iterator[Page]:
    """Anna looks at the list; what she opens is closed afterwards."""
    page = open_page()
    page.open(recorded.server.url, recorded.secret)
    page.wait(lambda: len(page.all("#recent > tr")) == len(NAMES), "the jobs")
    ours = page.driver.current_window_handle
    yield page
    for tab in page.driver.window_handles:
        if tab != ours:
            page.driver.switch_to.window(tab)
            page.driver.close()
    page.driver.switch_to.window(ours)


def follow(page: Page, link: Callable[[], WebElement]) -> None:
    """Click once, and look at the tab that it opens."""
    before = set(page.driver.window_handles)
    page.wait(lambda: link().is_displayed(), "the link")
    link().click()
    opened = page.wait(lambda: set(page.driver.window_handles) - before, "a new tab")
    page.driver.switch_to.window(opened.pop())


def shows_training(page: Page) -> bool:
    """Whether MLflow is in the mode for models, rather than that for language models with its prompts and judges."""
    shown = page.text("body")
    return "Model training" in shown and "Judges" not in shown and "Prompts" not in shown


def test_to_the_run(page: Page, recorded: Recorded) -> None:
    follow(page, lambda: page.row("recent", "good-lr").find_element(By.LINK_TEXT, "MLflow run"))
    page.wait(lambda: recorded.runs["good-lr"] in page.text("body"), "the run's id")
    page.wait(lambda: "train.optimizer.lr" in page.text("body"), "its parameters")
    assert shows_training(page)
    page.shoot("mlflow-run")


@pytest.mark.slow  # the link's address is looked at below
def test_to_the_runs_of_the_experiment(page: Page) -> None:
    follow(page, lambda: page.row("recent", "good-lr").find_element(By.LINK_TEXT, "all runs"))
    page.wait(lambda: all(name in page.text("body") for name in NAMES), "the runs")
    assert shows_training(page)
    page.shoot("mlflow-runs")


def test_to_the_comparison_of_three(page: Page) -> None:
    for name in NAMES:
        page.row("recent", name).find_element(By.CSS_SELECTOR, ".pick").click()
    page.wait(lambda: "3 runs picked" in page.text("#compare"), "the count")
    page.shoot("picked")
    follow(page, lambda: page.one("#compare-link"))
    page.wait(lambda: "Comparing 3 Runs" in page.text("body"), "the comparison")
    page.wait(lambda: all(name in page.text("body") for name in NAMES), "the runs")
    assert shows_training(page)
    page.shoot("mlflow-comparison")


def test_one_pick_is_not_enough_and_none_hides_the_bar(page: Page) -> None:
    page.row("recent", "wild-lr").find_element(By.CSS_SELECTOR, ".pick").click()
    page.wait(lambda: "pick others" in page.text("#compare"), "what to do")
    assert not page.one("#compare-link").is_displayed()
    page.press("Pick none")
    page.wait(lambda: not page.one("#compare").is_displayed(), "no bar")
    assert not [box for box in page.all(".pick") if box.is_selected()]


def test_a_jobs_page_leads_there_too(page: Page, recorded: Recorded) -> None:
    page.row("recent", "slow-lr").find_element(By.CSS_SELECTOR, ".job-link").click()
    page.wait(lambda: "all its runs" in page.text("#job-details"), "the experiment")
    links = [link.get_attribute("href") or "" for link in page.all("#job-details a") if link.is_displayed()]
    assert [link.partition("/#/")[2] for link in links] == [
        f"experiments/1/runs/{recorded.runs['slow-lr']}?workflowType=machine_learning",
        "experiments/1/runs?workflowType=machine_learning",
    ]
