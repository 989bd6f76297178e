"""What a scrape reads of jobs and agents: from a real ledger, as it goes through what can happen to them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from epochal.ledger.capacity import Group, Node
from epochal.ledger.ledger import Ledger
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.ledger.values import Lease
from epochal.server.metric_table import TABLE
from epochal.server.metrics import Metrics
from epochal.server.reconciler import Counts, Reconciler, Timing

PROGRESS = {
    "phase": "train",
    "step": 40,
    "total_steps": 100,
    "samples_per_second": 512.0,
    "step_seconds": {"data": 0.01, "forward_backward": 0.2, "optimizer": 0.05, "invented": 1.0},
    "metrics": {"train/loss": 0.5, "val/loss": 0.7, "val/accuracy": 0.8},
}
STATES = ("ready", "asked", "most")
NODES = [Node("n1", "host", {"CPU": 4.0, "GPU": 8.0}, {"CPU": 1.0, "GPU": 8.0})]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


class Scraper:
    def __init__(self, ledger: Ledger, counts: Counts | None = None) -> None:
        self._metrics = Metrics()
        self._metrics.watch(ledger, lambda: 0, counts or Counts())
        self.found: dict[str, float] = {}
        self.scrape()

    def scrape(self) -> dict[str, float]:
        """Every sample, written as in a query, without a job's id and name."""
        self.found = {}
        for family in text_string_to_metric_families(self._metrics.text().decode()):
            for sample in family.samples:
                labels = {name: value for name, value in sample.labels.items() if not name.startswith("job_")}
                shown = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
                self.found[f"{sample.name}{{{shown}}}" if shown else sample.name] = sample.value
        return self.found


def leased(ledger: Ledger, spec: dict[str, object] | None = None) -> Lease:
    job = ledger.submit(spec or {"version": 1, "name": "digits"}, name="digits")
    lease = ledger.lease("agent/1", 30, job.id)
    assert lease is not None
    return lease


def completes(ledger: Ledger) -> None:
    lease = leased(ledger)
    ledger.running(lease, world_size=1)
    ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)


def test_every_metric_that_is_told_is_in_the_table(ledger: Ledger) -> None:
    lease = leased(ledger)
    ledger.running(lease, world_size=2)
    ledger.heartbeat("agent", "1", NODES, (), {"worker_seconds": {"train": 1.0}, "jobs": 1})
    ledger.renew(lease, 30, PROGRESS)
    told = {name.partition("{")[0] for name in Scraper(ledger).found}
    histogram = ("_bucket", "_count", "_sum", "_created")
    plain = {next((name.removesuffix(end) for end in histogram if name.endswith(end)), name) for name in told}
    assert plain <= set(TABLE)


def test_a_jobs_gauges_come_with_its_lease_and_go_with_its_end(ledger: Ledger) -> None:
    lease = leased(ledger)
    scraper = Scraper(ledger)
    assert scraper.found["epochal_job_running"] == 0
    assert "epochal_job_step" not in scraper.found, "its workers are starting: no step is missed"
    ledger.running(lease, world_size=2)
    assert scraper.scrape()["epochal_job_step"] == 0
    ledger.renew(lease, 30, PROGRESS)
    found = scraper.scrape()
    assert {name: value for name, value in found.items() if name.startswith("epochal_job_")} == {
        "epochal_job_attempt": 1,
        "epochal_job_running": 1,
        "epochal_job_workers": 2,
        "epochal_job_step": 40,
        "epochal_job_stepping": 1,
        "epochal_job_total_steps": 100,
        "epochal_job_samples_per_second": 512,
        'epochal_job_loss{split="train"}': 0.5,
        'epochal_job_loss{split="validation"}': 0.7,
        'epochal_job_step_seconds{part="data"}': 0.01,
        'epochal_job_step_seconds{part="forward_backward"}': 0.2,
        'epochal_job_step_seconds{part="optimizer"}': 0.05,
        "epochal_job_checkpoint_age_seconds": pytest.approx(found["epochal_job_checkpoint_age_seconds"], abs=5),
    }
    ledger.renew(lease, 30, {**PROGRESS, "phase": "validate"})
    assert scraper.scrape()["epochal_job_stepping"] == 0
    ledger.saved(lease, 40, "checkpoints/40")
    assert scraper.scrape()["epochal_job_checkpoint_step"] == 40
    ledger.finish(lease, JobState.SUCCEEDED, Reason.COMPLETED)
    assert not [name for name in scraper.scrape() if name.startswith("epochal_job_")]
    assert scraper.found['epochal_attempts_ended_total{outcome="SUCCEEDED",reason="COMPLETED"}'] == 1


def test_an_attempt_that_fails_has_lost_what_it_did_since_its_checkpoint_times_its_workers(ledger: Ledger) -> None:
    lease = leased(ledger)
    ledger.running(lease, world_size=4)
    scraper = Scraper(ledger)
    ended, lost = (
        'epochal_attempts_ended_total{outcome="FAILED",reason="INFRASTRUCTURE"}',
        'epochal_lost_worker_seconds_total{reason="INFRASTRUCTURE"}',
    )
    assert (scraper.found[ended], scraper.found[lost]) == (0, 0)
    time.sleep(0.2)
    again = ledger.lease_again(lease, 30, Reason.INFRASTRUCTURE, "a worker was lost")
    assert again is not None
    assert scraper.scrape()[ended] == 1
    assert 0.8 <= scraper.found[lost] < 20
    assert scraper.found["epochal_job_attempt"] == 2
    before = scraper.found[lost]
    ledger.running(again, world_size=4)
    time.sleep(0.2)
    saved = time.monotonic()
    ledger.saved(again, 40, "checkpoints/40")
    ledger.retry(again, Reason.INFRASTRUCTURE, "a worker was lost")
    since = time.monotonic() - saved
    assert scraper.scrape()[ended] == 2
    assert scraper.found[lost] - before < 0.4 + 4 * since, "what was saved is not lost"
    assert scraper.scrape()[ended] == 2, "each is counted once"


def test_what_ended_before_the_first_scrape_or_while_much_else_happened_is_counted_right(ledger: Ledger) -> None:
    completes(ledger)
    completed = 'epochal_attempts_ended_total{outcome="SUCCEEDED",reason="COMPLETED"}'
    scraper = Scraper(ledger)
    assert scraper.found[completed] == 0
    completes(ledger)
    other = leased(ledger)
    for number in range(300):
        ledger.note(other, EventKind.NOTED, f"note {number}")
    assert scraper.scrape()[completed] == 1


def test_the_queues_oldest_job_and_a_sweeps_trials(ledger: Ledger) -> None:
    scraper = Scraper(ledger)
    assert scraper.found["epochal_queue_oldest_seconds"] == 0
    ledger.submit({"version": 1, "name": "waits"}, name="waits")
    time.sleep(0.1)
    assert 0.05 <= scraper.scrape()["epochal_queue_oldest_seconds"] < 20
    space = {"train.optimizer.lr": {"choice": [0.1, 0.2]}}
    sweep = leased(ledger, {"version": 1, "name": "sweep", "sweep": {"trials": 4, "space": space}})
    ledger.running(sweep, world_size=2)
    ledger.renew(sweep, 30, {"trials": 4, "done": 1, "running": 2, "failed": 0, "best": {"trial": 0, "value": 0.9}})
    found = scraper.scrape()
    states = {name: value for name, value in found.items() if name.startswith("epochal_sweep_")}
    assert states == {
        'epochal_sweep_trials{state="wanted"}': 4,
        'epochal_sweep_trials{state="done"}': 1,
        'epochal_sweep_trials{state="running"}': 2,
        'epochal_sweep_trials{state="failed"}': 0,
        "epochal_sweep_best": 0.9,
    }
    of_trainings = {"epochal_job_step", "epochal_job_checkpoint_age_seconds"}
    assert not of_trainings & set(found), "a sweep does no steps of its own, and its trials save theirs"


def test_an_agents_metrics_are_those_of_its_last_heartbeat(ledger: Ledger) -> None:
    detail = {"jobs": 1, "warm": 2, "unsent_bytes": 7, "worker_seconds": {"train": 5.5, "mischief": 1.0}}
    ledger.heartbeat("agent", "1", NODES, (), detail)
    found = Scraper(ledger).found
    assert found['epochal_agent_up{agent="agent"}'] == 1
    assert found['epochal_agent_gpus{agent="agent",state="total"}'] == 8
    assert found['epochal_agent_cpus{agent="agent",state="free"}'] == 1
    assert found['epochal_agent_unsent_bytes{agent="agent"}'] == 7
    assert found['epochal_worker_seconds_total{agent="agent",use="train"}'] == 5.5
    assert found['epochal_worker_seconds_total{agent="agent",use="data"}'] == 0
    assert not [name for name in found if "mischief" in name]


def test_worker_groups_and_warnings_of_an_agent(ledger: Ledger) -> None:
    ledger.heartbeat("agent", "1", NODES, (), {"warnings": [{"found": "no warm worker lasts", "advice": "set this"}]})
    ledger.provision("agent/1", (Group("gpu", {"GPU": 8.0}, most=8, asked=2, nodes=("n1",)),))
    found = Scraper(ledger).found
    assert found['epochal_agent_warnings{agent="agent"}'] == 1
    counted = {state: found[f'epochal_group_nodes{{agent="agent",group="gpu",state="{state}"}}'] for state in STATES}
    assert counted == {"ready": 1, "asked": 2, "most": 8}


@pytest.mark.parametrize("nonsense", [7, "x", [1], {"train": "x", "data": None, "train/loss": {}}], ids=str)
def test_an_agent_that_tells_nonsense_keeps_no_other_from_being_seen(ledger: Ledger, nonsense: object) -> None:
    ledger.heartbeat("odd", "1", NODES, (), {"worker_seconds": nonsense, "jobs": nonsense, "warnings": nonsense})
    ledger.heartbeat("sound", "1", NODES, (), {"worker_seconds": {"train": 5.5}})
    lease = leased(ledger)
    ledger.running(lease, world_size=1)
    ledger.renew(lease, 30, dict.fromkeys(("step", "metrics", "ranks", "step_seconds", "best", "trials"), nonsense))
    found = Scraper(ledger).found
    assert found['epochal_worker_seconds_total{agent="sound",use="train"}'] == 5.5
    assert found["epochal_job_running"] == 1


def test_how_long_a_part_of_the_reconciler_has_failed_is_told(ledger: Ledger, tmp_path: Path) -> None:
    reconciler = Reconciler(ledger, None, timing=Timing(lease=60.0))
    reconciler.tick()
    scraper = Scraper(ledger, reconciler.counts)
    assert scraper.found['epochal_reconciler_lag_seconds{part="leases"}'] < 5
    assert 'epochal_reconciler_lag_seconds{part="runs"}' not in scraper.found, "there is no MLflow to look at"
    reconciler.counts.succeeded["leases"] -= 100
    assert scraper.scrape()['epochal_reconciler_lag_seconds{part="leases"}'] > 99
    reconciler.tick()
    assert scraper.scrape()['epochal_reconciler_lag_seconds{part="leases"}'] < 5
    ledger.close()
    (tmp_path / "ledger.db").unlink()
    (tmp_path / "ledger.db").mkdir()
    assert scraper.scrape()["epochal_ledger_up"] == 0
