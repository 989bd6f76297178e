"""A job's page: what its data was taken for, and what it says where it shows a part."""

from __future__ import annotations

import pytest
from invented_jobs import EVIL, MLFLOW, Invented, spec
from page import at_list, at_training, sideways

from chromium import Page
from epochal.ledger.states import EventKind, JobState
from epochal.ledger.sweep_values import NewInput, TrialRecord
from epochal.server.log_store import Stream
from epochal.sweeps.trials import TrialState

LOGS = [
    pytest.param(["one\ntwo\n"], ["one", "two"], "", id="all of it"),
    pytest.param(
        ["".join(f"line {number}\n" for number in range(600))],
        [f"line {number}" for number in range(100, 600)],
        "The last 500 lines of 5.2 KiB are shown; all of it: epochal logs JOB",
        id="many lines",
    ),
    pytest.param([" 10%\r 50%", "\r 90%"], [" 90%"], "", id="a bar"),
    pytest.param([" 10%\r", "\x1b[2K\rdone\nnext"], ["done", "next"], "", id="a bar that has ended"),
    pytest.param(["100%", "\b\b\b\b99%\x1b[K\n"], ["99%"], "", id="steps back"),
    pytest.param(["\x1b[32mgreen\x1b[0m \x1b]0;title\x07text\n"], ["green text"], "", id="colours"),
]


@pytest.mark.parametrize(("written", "lines", "said"), LOGS)
def test_logs(page: Page, shared: Invented, written: list[str], lines: list[str], said: str) -> None:
    job = shared.server.ledger.submit({"version": 1}, name="printing", submitted_by="anna")
    end = shared.server.services.logs.append(job.id, Stream(1, 0), 0, written[0].encode())
    page.open(shared.server.url, shared.secrets["anna"], job.id)
    page.wait(lambda: page.all("#logs .line"), "the first lines")
    for text in written[1:]:
        end = shared.server.services.logs.append(job.id, Stream(1, 0), end, text.encode())
    page.wait(lambda: shown(page) == lines, "the lines")
    assert page.texts("#logs-part") == ([said.replace("JOB", job.id)] if said else [])


def shown(page: Page) -> list[str]:
    script = "return [...document.querySelectorAll('#logs .line span:last-child')].map(line => line.textContent)"
    return list(page.run(script))


def test_logs_of_older_attempts_are_counted(page: Page, shared: Invented) -> None:
    job = shared.server.ledger.submit({"version": 1}, name="tried-again", submitted_by="anna")
    for attempt, text in ((1, b"x" * 4095 + b"\n"), (2, b"again\n")):
        shared.server.services.logs.append(job.id, Stream(attempt, 0), 0, text)
    page.open(shared.server.url, shared.secrets["anna"], job.id)
    page.wait(lambda: shown(page) == ["again"], "the newest attempt")
    assert page.text("#logs-part").startswith("The last 1 line of 4.0 KiB are shown")


def test_what_the_data_was_taken_for(page: Page, shared: Invented) -> None:
    at_training(page, shared)
    page.wait(lambda: page.one("#job-data").is_displayed(), "the data")
    assert page.text("#data-source") == "csv · /data/plants/2026 survey.csv"
    assert page.text("#data-split") == "24,210 samples to train on 6,053 to validate on"
    rows = page.texts("#data-parts > tr")
    assert rows[0] == "species target, class 7 classes"
    assert "height number 1,204 row 34, 128, 131, 240, 402 and 1,199 more become the mean" in rows
    assert f"{EVIL} number" in rows
    assert len(rows) == 100
    assert page.text("#data-parts-more").startswith("100 of 126 are shown; data.json among the artifacts")
    classes = page.texts("#data-classes > li")
    assert classes[0] == "ash 9,120 + 2,280"
    assert classes[-1] == "yew 0 + 0"
    widths = page.run(
        "return [...document.querySelectorAll('#data-classes .train')].map(bar => parseFloat(bar.style.width))"
    )
    assert widths == sorted(widths, reverse=True)
    assert widths[0] == pytest.approx(80.0)
    assert [note.split(":")[0] for note in page.texts("#data-notes > li")] == [
        "1 of 6,053 validation samples are of classes that no training sample has",
        "val/auroc is left out",
    ]
    assert not page.one("#data-classes-more").is_displayed()
    page.one(".back").click()
    page.wait(lambda: page.all("#queue > tr"), "the list")
    page.one("#queue .job-link").click()
    page.wait(lambda: page.text("#job-title") not in ("", "digits-cnn"), "another job")
    page.wait(lambda: page.one("#job-parts").is_displayed(), "its parts")
    assert not page.one("#job-data").is_displayed()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("#job-live figcaption", "Training loss 44 of 60 values that were told; MLflow has every one"),
        ("#job-live dl", "More metrics 3, in MLflow"),
        ("#job-events", "of 412 characters; the rest: epochal events JOB -o json"),
    ],
)
def test_what_is_drawn_in_part(page: Page, own: Invented, where: str, said: str) -> None:
    told = {**(own.server.ledger.job(own.training.job_id).progress or {}), "loss_values": 60}
    own.server.ledger.renew(own.training, 600, told)
    own.server.ledger.note(own.training, EventKind.WAITING, detail={"why": "x" * 408})
    at_training(page, own)
    page.wait(lambda: said.replace("JOB", own.training.job_id) in page.text(where), said)
    assert not page.one("#job-events-more").is_displayed()


def test_events_that_are_not_kept(page: Page, own: Invented) -> None:
    assert list(own.server.ledger.prune(0.0, None))
    page.open(own.server.url, own.secrets["anna"], own.jobs["good"].id)
    page.wait(lambda: page.texts("#job-events-more"), "what is said of older events")
    assert page.texts("#job-events .event-kind") == ["succeeded"]


def test_stop_now_kills_its_workers_once_that_is_confirmed(page: Page, own: Invented) -> None:
    at_list(page, own)
    assert "Stop now" not in page.texts("#running button")
    at_training(page, own)
    dialog = page.one("#confirm")
    page.press("Stop", lambda: page.one("#job-actions"))
    page.wait(lambda: "its workers have 30 seconds to save their state" in page.text("#confirm-text"), "the question")
    page.press("Stop it", lambda: dialog)
    page.wait(lambda: page.text("#job-state") == "stopping", "the stop")
    job = own.server.ledger.job(own.training.job_id)
    assert (job.state, job.grace) == (JobState.STOPPING, 30.0)
    page.press("Stop now", lambda: page.one("#job-actions"))
    page.wait(lambda: page.text("#confirm-title") == "Stop digits-cnn now?", "the question")
    page.press("Kill its workers", lambda: dialog)
    page.wait(lambda: own.server.ledger.job(job.id).grace == 0.0, "the end of its grace")


SPACE = {"train.optimizer.lr": {"dist": "loguniform", "low": 1e-4, "high": 1e-1}}
SWEEP = {
    **spec(),
    "train": {"epochs": 9},
    "objective": {"metric": "val/accuracy", "mode": "max"},
    "sweep": {"trials": 32, "space": SPACE},
}


def trial(number: int, state: TrialState, length: float, value: float | None) -> TrialRecord:
    point = {"train.optimizer.lr": 10 ** -(1 + number / 8), "model.params.channels": [16, 32]}
    return TrialRecord(number, point, state, length, 9.0, value, {}, f"{number:032x}")


def test_a_sweep_shows_its_trials_live(page: Page, own: Invented) -> None:
    ledger, states = own.server.ledger, [TrialState.STOPPED, TrialState.STOPPED, TrialState.PAUSED]
    job = ledger.submit(SWEEP, name="digits-sweep", submitted_by="anna")
    lease = ledger.lease("cluster-a/1", 600, job.id)
    assert lease is not None
    ledger.running(lease, world_size=2)
    told = {"trials": 32, "done": 18, "running": 2, "failed": 1, "best": {"trial": 11, "value": 0.93}}
    ledger.renew(lease, 600, told)
    records = [trial(number, states[number % 3], 1.0, 0.5 + number / 100) for number in range(18)]
    records += [trial(number, TrialState.COMPLETED, 9.0, 0.93 - (29 - number) / 1000) for number in (28, 29)]
    records += [trial(30, TrialState.RUNNING, 0.0, None), trial(31, TrialState.FAILED, 3.0, 0.99)]
    ledger.append_inputs(lease, 0, [NewInput({"kind": "asked"})], records)
    page.open(own.server.url, own.secrets["anna"], job.id)
    page.wait(lambda: page.one("#job-sweep").is_displayed(), "the sweep")
    assert page.text("#job-live .meta") == "18 of 32 trials · 2 running · 1 failed · best 0.93 (trial 11)"
    assert page.texts("#sweep-rungs > li") == ["not yet 1", "1 18", "3 1", "9 2"]
    bars = "return [...document.querySelectorAll('#sweep-rungs .amounts')].map(bar => bar.getAttribute('aria-label'))"
    assert page.run(bars) == ["1 running", "6 paused, 12 stopped", "1 failed", "2 completed"]
    rows = page.texts("#sweep-best > tr")
    assert len(rows) == 10
    assert rows[0].startswith("29 completed 9 0.93 lr ")
    assert rows[0].endswith("channels [16,32]")
    ledger.set_run(lease, f"{99:032x}", MLFLOW, "7")  # as the trials' own, it is known a while after they are
    page.wait(lambda: page.one("#sweep-best > tr a").get_attribute("href"), "the link to its run")
    assert page.texts("#sweep-best > tr")[0].endswith("channels [16,32] 00000000")
    link = page.one("#sweep-best > tr a").get_attribute("href")
    assert link == f"{MLFLOW}/#/experiments/7/runs/{29:032x}?workflowType=machine_learning"
    assert page.text("#sweep-more").endswith(f"the rest: epochal sweep status {job.id} --limit 22")
    label = page.one("#sweep-curve svg").get_attribute("aria-label")
    assert label == "the best from 0.5 to 0.93, lowest 0.5"
    page.shoot("sweep")
    ledger.append_inputs(lease, 1, [], [trial(30, TrialState.COMPLETED, 9.0, 0.97)])
    ledger.renew(lease, 600, {**told, "done": 19})
    page.wait(lambda: page.texts("#sweep-best > tr")[0].startswith("30 completed 9 0.97"), "the new best")
    assert not sideways(page)
    assert page.complaints() == []
    page.one(".back").click()
    page.wait(lambda: page.all("#queue > tr"), "the list")
    page.one("#queue .job-link").click()
    page.wait(lambda: page.text("#job-title") not in ("", "digits-sweep"), "another job")
    assert not page.one("#job-sweep").is_displayed()


def test_times_are_by_the_server_s_clock(page: Page, shared: Invented) -> None:
    job = shared.server.ledger.submit({"version": 1}, name="waiting", submitted_by="anna")
    page.open(shared.server.url, shared.secrets["anna"])
    page.wait(lambda: page.all("#queue > tr"), "the list")
    page.run("const right = Date.now; Date.now = () => right() + 3_600_000;")
    page.run(f"location.hash = 'job={job.id}'")
    page.wait(lambda: "In this state" in page.text("#job-details"), "the details")
    assert "1h 00m" not in page.text("#job-details")
