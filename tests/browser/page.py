"""A browser on the page, and what a person does there."""

from __future__ import annotations

from invented_jobs import Invented

from chromium import Page


def at_list(page: Page, invented: Invented, person: str = "anna") -> Page:
    page.open(invented.server.url, invented.secrets[person])
    page.wait(lambda: person in page.text("#user") and page.all("#running > tr"), "the running jobs")
    return page


def at_training(page: Page, invented: Invented) -> Page:
    page.open(invented.server.url, invented.secrets["anna"], invented.training.job_id)
    page.wait(lambda: page.text("#job-title") == "digits-cnn", "the job")
    return page


def sideways(page: Page) -> bool:
    """Whether one would have to scroll sideways."""
    return bool(page.run("return document.documentElement.scrollWidth > document.documentElement.clientWidth"))
