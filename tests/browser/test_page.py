"""The page in a real browser: what it shows, what can be done there, and what it does not let happen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from invented_jobs import EVIL, MLFLOW, Invented, progress
from page import at_list, at_training, sideways
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from chromium import Page
from epochal.ledger.states import EventKind, JobState, Reason
from epochal.server.log_store import Stream


@pytest.fixture
def signed_in(page: Page, shared: Invented) -> Page:
    """Anna looks at the list."""
    return at_list(page, shared)


def state(invented: Invented, purpose: str) -> JobState:
    return invented.server.ledger.job(invented.jobs[purpose].id).state


class TestList:
    def test_running_jobs_show_where_they_are(self, signed_in: Page, shared: Invented) -> None:
        row = signed_in.row("running", "digits-cnn")
        bar = row.find_element(By.CSS_SELECTOR, "[role=progressbar]")
        assert bar.get_attribute("aria-valuenow") == "43"
        for said in ("43 % · step 430 of 1,000 · epoch 2 of 5", "1m 03s", "20,433"):
            assert said in row.text
        curve = row.find_element(By.CSS_SELECTOR, "svg .line").get_attribute("d") or ""
        assert curve.count("L") == len(progress(430)["loss_history"]) - 1
        assert "loss from" in (row.find_element(By.TAG_NAME, "svg").get_attribute("aria-label") or "")
        link = row.find_element(By.LINK_TEXT, "MLflow run").get_attribute("href") or ""
        run_id = shared.server.ledger.job(shared.training.job_id).run_id
        assert link == f"{MLFLOW}/#/runs/{run_id}?workflowType=machine_learning"

    def test_the_list_follows_the_jobs_by_itself(self, page: Page, own: Invented) -> None:
        at_list(page, own)
        ledger = own.server.ledger
        ledger.renew(own.training, 600, progress(900))
        page.wait(lambda: "step 900 of 1,000" in page.text("#running"), "the new step")
        ledger.finish(own.training, JobState.SUCCEEDED, Reason.COMPLETED)
        page.wait(lambda: "succeeded" in page.row("recent", "digits-cnn").text, "the end")
        assert "digits-cnn succeeded" in page.text("#toast")

    def test_queued_jobs_say_why_they_wait(self, signed_in: Page, shared: Invented) -> None:
        entries = shared.server.ledger.queue()
        shown = [" ".join(row.text.split()) for row in signed_in.all("#queue > tr")]
        assert len(shown) == len(entries)
        for entry, text in zip(entries, shown, strict=True):
            assert text.startswith(f"{entry.position} {entry.job.name}")
            assert entry.why.message in text
        assert "never fits" in signed_in.row("queue", "moe-router").text

    def test_ended_jobs_say_what_happened(self, signed_in: Page) -> None:
        failed = signed_in.row("recent", "unet-segmentation").text
        assert "user error" in failed
        assert "expected an input with 3 channels" in failed
        assert "completed" in signed_in.row("recent", "digits-mlp").text

    def test_agents_and_what_is_free(self, signed_in: Page) -> None:
        cluster = signed_in.text("#agents")
        assert "gpu-01 CPU 3.5 / 16 free GPU 1 / 4 free Memory 20 GiB / 64 GiB free" in cluster
        meters = signed_in.all("#agents [role=meter]")
        assert "node gpu-01 does not keep idle workers; set RAY_a=0 <b>there</b>" in cluster
        assert {"CPU in use on gpu-01", "GPU in use on gpu-02"} <= {one.get_attribute("aria-label") for one in meters}

    def test_filter_finds_by_any_word(self, signed_in: Page) -> None:
        signed_in.run("document.activeElement.blur()")
        signed_in.one("body").send_keys("/")
        signed_in.driver.switch_to.active_element.send_keys("ben research")
        names = signed_in.texts("#running .job-link") + signed_in.texts("#queue .job-link")
        assert names == ["resnet50-imagenet-baseline", "llm-3b-pretrain"]
        assert signed_in.text("#running-count") == "1 of 4"
        signed_in.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
        assert signed_in.text("#running-count") == "4"

    def test_of_many_jobs_the_first_are_shown_and_all_are_counted(self, page: Page, own: Invented) -> None:
        ledger = own.server.ledger
        for index in range(250):
            ledger.submit({"version": 1}, name=f"many-{index}", submitted_by="anna")
        at_list(page, own)
        page.wait(lambda: len(page.all("#queue > tr")) == 200, "200 rows")
        total = ledger.counts()[JobState.QUEUED]
        assert page.text("#queue-count") == str(total)
        assert page.text("#queue-more").startswith(f"{total - 200} more jobs behind these")
        assert f"epochal jobs --state QUEUED --limit {total} lists" in page.text("#queue-more")

    def test_of_many_that_have_ended_the_newest_are_shown_and_all_are_counted(self, page: Page, own: Invented) -> None:
        ledger = own.server.ledger
        for index in range(30):
            ledger.request_stop(ledger.submit({"version": 1}, name=f"over-{index}", submitted_by="anna").id, "")
        at_list(page, own)
        page.wait(lambda: len(page.all("#recent > tr")) == 20, "20 rows")
        page.wait(lambda: "lists them all" in page.text("#recent-more"), "what there is more of")
        counts = ledger.counts()
        total = sum(counts[state] for state in JobState if state.is_terminal or state is JobState.PAUSED)
        assert page.text("#recent-count") == str(total)
        assert page.text("#recent-more").startswith(f"{total - 20} more jobs behind these")
        assert f"--state PAUSED --limit {total} lists" in page.text("#recent-more")
        assert not page.one("#running-more").is_displayed()


class TestJob:
    def test_details_attempts_and_events(self, page: Page, own: Invented) -> None:
        at_training(page, own)
        assert f"Id {own.training.job_id}" in page.text("#job-details")
        assert "2 workers" in page.text("#job-attempts")
        assert "checkpoint at step 20" in page.text("#job-attempts")
        assert page.texts("#job-events .event-kind") == ["run set", "running", "leased", "submitted"]
        assert "val/accuracy 0.9131" in page.text("#job-live")
        own.server.ledger.note(own.training, EventKind.WAITING, detail={"step": 440})
        page.wait(lambda: "step=440" in page.texts("#job-events li")[0], "the new event")
        assert len(page.all("#job-events li")) == 5
        assert "MLflow" not in page.text("#job-details")
        own.server.ledger.note(own.training, EventKind.TRACKING, "its run was deleted in MLflow: restore it")
        page.wait(lambda: "MLflow its run was deleted in MLflow: restore it" in page.text("#job-details"), "the remedy")

    def test_logs_follow_line_by_line(self, page: Page, own: Invented) -> None:
        logs, job_id = own.server.services.logs, own.training.job_id
        at_training(page, own)
        end = logs.append(job_id, Stream(1, 0), 0, b"\x1b[32mepoch 1\x1b[0m\nhalf a li")
        logs.append(job_id, Stream(1, 1), 0, b"from the other\n")
        page.wait(lambda: len(page.all("#logs .line")) == 3, "two whole lines, and what there is of the third")
        logs.append(job_id, Stream(1, 0), end, f"ne\n{EVIL}\n".encode())
        page.wait(lambda: len(page.all("#logs .line")) == 4, "the rest")
        lines = page.run("return [...document.querySelectorAll('#logs .line')].map(line => line.textContent)")
        assert sorted(lines) == sorted(["0epoch 1", "1from the other", "0half a line", f"0{EVIL}"])
        page.one("#logs-rank").find_element(By.CSS_SELECTOR, "option[value='1']").click()
        page.wait(lambda: len(page.all("#logs .line")) == 1, "one rank alone")

    def test_back_to_the_list_and_to_another_job(self, page: Page, shared: Invented) -> None:
        at_training(page, shared)
        page.one(".back").click()
        page.wait(lambda: page.row("queue", "moe-router"), "the queue")
        page.one("#queue").find_element(By.LINK_TEXT, "moe-router").click()
        page.wait(lambda: page.text("#job-title") == "moe-router", "the other job")
        page.wait(lambda: "resources.memory_per_worker" in page.text("#job-message"), "why it waits")
        page.driver.back()
        page.wait(lambda: page.one("#overview").is_displayed(), "the list again")

    def test_a_job_that_is_not_there(self, page: Page, shared: Invented) -> None:
        page.open(shared.server.url, shared.secrets["anna"], "no-such-job")
        page.wait(lambda: "No job is named 'no-such-job'" in page.text("#trouble"), "the refusal")
        assert not page.texts("#job-actions button")
        assert not page.one("#job-parts").is_displayed()
        assert page.text("#link-text") == "live"


class TestActions:
    def test_pause_resume_retry(self, page: Page, own: Invented) -> None:
        at_list(page, own)
        page.press("Pause", lambda: page.row("queue", "vit-finetune"))
        page.wait(lambda: state(own, "next") is JobState.PAUSED, "the pause")
        page.press("Resume", lambda: page.row("recent", "vit-finetune"))
        page.wait(lambda: state(own, "next") is JobState.QUEUED, "the resumption")
        page.press("Retry", lambda: page.row("recent", "digits-mlp"))
        page.wait(lambda: page.row("queue", "digits-mlp"), "the new job")

    def test_stop_asks_first(self, page: Page, own: Invented) -> None:
        at_list(page, own)
        dialog = page.one("#confirm")
        page.press("Stop", lambda: page.row("running", "digits-cnn"))
        page.wait(dialog.is_displayed, "the question")
        page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
        page.wait(lambda: not dialog.is_displayed(), "its end")
        assert state(own, "training") is JobState.RUNNING
        page.press("Stop", lambda: page.row("running", "digits-cnn"))
        page.press("Stop it", lambda: dialog)
        page.wait(lambda: state(own, "training") is JobState.STOPPING, "the stop")

    @pytest.mark.parametrize(("person", "jobs"), [("visitor", 0), ("ben", 2), ("boss", 4)])
    def test_nobody_sees_a_button_for_what_they_may_not_do(
        self, page: Page, shared: Invented, person: str, jobs: int
    ) -> None:
        at_list(page, shared, person)
        stops = [one for one in page.all("#running button") if one.text == "Stop" and one.is_displayed()]
        assert len(stops) == jobs

    def test_a_refusal_is_shown(self, page: Page, own: Invented) -> None:
        """The job has ended between two looks at it."""
        at_list(page, own)
        page.driver.execute_cdp_cmd("Network.enable", {})
        page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/overview"]})
        own.server.ledger.finish(own.training, JobState.SUCCEEDED, Reason.COMPLETED)
        page.press("Pause", lambda: page.row("running", "digits-cnn"))
        page.wait(lambda: "SUCCEEDED" in page.text("#toast"), "the refusal")
        page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})


class TestToken:
    def test_the_token_leaves_the_address_at_once_and_stays_in_this_tab(self, signed_in: Page) -> None:
        assert "token" not in signed_in.driver.current_url
        assert signed_in.run("return localStorage.length + document.cookie.length") == 0
        signed_in.driver.refresh()
        signed_in.wait(lambda: signed_in.all("#running > tr"), "the jobs again")
        signed_in.press("Sign out")
        assert signed_in.run("return sessionStorage.length") == 0
        assert signed_in.one("#sign-in").is_displayed()

    def test_signing_in_by_hand(self, page: Page, shared: Invented) -> None:
        page.open(shared.server.url)
        page.wait(lambda: page.one("#sign-in").is_displayed(), "the form")
        page.one("#token").send_keys("ep_wrong", Keys.ENTER)
        page.wait(lambda: page.text("#sign-in-problem"), "the refusal")
        page.one("#token").send_keys(shared.secrets["ben"], Keys.ENTER)
        page.wait(lambda: page.all("#running > tr"), "the jobs")

    def test_a_token_in_the_address_is_whoever_s_it_is(self, signed_in: Page, shared: Invented) -> None:
        signed_in.run(f"location.hash = 'token={shared.secrets['ben']}'")
        signed_in.wait(lambda: signed_in.text("#user").startswith("ben"), "the other user")

    def test_a_token_that_is_revoked_meanwhile_ends_the_session(self, page: Page, own: Invented) -> None:
        at_list(page, own)
        (mine,) = [token for token in own.server.ledger.tokens() if token.user == "anna"]
        own.server.ledger.revoke_token(mine.id)
        page.wait(lambda: page.one("#sign-in").is_displayed(), "the form")
        assert not page.all("#overview:not([hidden])")


class TestSafety:
    def test_a_job_named_like_a_script_is_harmless(self, signed_in: Page) -> None:
        assert EVIL in signed_in.texts("#running .job-link")
        signed_in.row("running", "<script>").find_element(By.CSS_SELECTOR, ".job-link").click()
        signed_in.wait(lambda: signed_in.text("#job-title") == EVIL, "the job")
        signed_in.wait(lambda: signed_in.driver.title == f"{EVIL} · Epochal", "its title")
        assert len(signed_in.all("script")) == 1
        assert signed_in.complaints() == []

    def test_nothing_inline_and_nothing_from_elsewhere(self, signed_in: Page, shared: Invented) -> None:
        policy = shared.server.client(None, "").get("/").headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        names = signed_in.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
        assert {name.split("/")[2] for name in names} == {shared.server.url.removeprefix("http://")}
        signed_in.run(
            "window.broken = []; addEventListener('securitypolicyviolation', e => broken.push(e.violatedDirective));"
            "const script = document.createElement('script'); script.textContent = 'window.taken = true';"
            "document.body.append(script)"
        )
        signed_in.wait(lambda: signed_in.run("return broken"), "the browser's refusal")
        assert signed_in.run("return window.taken") is None

    def test_a_run_link_leads_to_the_web_only(self, page: Page, own: Invented) -> None:
        own.server.ledger.set_run(own.training, "abc", "javascript:alert(1)//http://")
        at_training(page, own)
        page.wait(lambda: "Run abc" in page.text("#job-details"), "the run")
        assert not page.all("[href^='javascript']")


def test_an_outage_is_shown_and_ends_by_itself(signed_in: Page) -> None:
    page = signed_in
    page.driver.execute_cdp_cmd("Network.enable", {})
    outage = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", outage)
    page.wait(lambda: "The server does not answer" in page.text("#trouble"), "the notice")
    assert page.all("#running > tr"), "what was known stays"
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**outage, "offline": False})
    page.wait(lambda: page.text("#link") == "live", "the connection")
    assert not page.one("#trouble").is_displayed()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("desktop", {}),
        pytest.param("dark", {"dark": True}, marks=pytest.mark.slow),
        pytest.param("phone", {"phone": True}, marks=pytest.mark.slow),
        ("phone-dark", {"phone": True, "dark": True}),
    ],
)
def test_it_fits_the_screen(name: str, kind: dict[str, bool], open_page: Callable[..., Page], shared: Invented) -> None:
    logs, job_id = shared.server.services.logs, shared.training.job_id
    for rank in (0, 1):
        lines = [f"12:00:{second:02d} rank {rank}: epoch 2  loss {1 / (second + 2):.4f}\n" for second in range(40)]
        logs.append(job_id, Stream(1, rank), 0, "".join(lines).encode())
    page = open_page(**kind)
    page.open(shared.server.url)
    page.wait(lambda: page.one("#sign-in").is_displayed(), "the form")
    page.shoot(f"{name}-sign-in")
    page.complaints()  # of the answer 401
    at_list(page, shared)
    page.shoot(f"{name}-list")
    assert not sideways(page)
    cards = page.run("return getComputedStyle(document.querySelector('#running > tr')).display === 'block'")
    assert cards is ("phone" in name)
    at_training(page, shared)
    page.wait(lambda: len(page.all("#logs .line")) == 80, "the logs")
    page.shoot(f"{name}-job")
    assert not sideways(page)
    assert page.complaints() == []
