"""A real Chromium on a real server whose ledger is full of invented jobs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from invented_jobs import Invented, invent

from epochal.tracking.server import TrackingServer
from epochal.urls import free_port
from running_server import RunningServer, settings_in

if TYPE_CHECKING:
    from chromium import Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    missing = pytest.mark.skip(reason="needs Chromium and its driver: apt install chromium chromium-driver")
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if not (CHROMIUM and DRIVER):
                item.add_marker(missing)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One for all tests of a session: it takes seconds to start."""
    from chromium import Page

    assert CHROMIUM
    assert DRIVER
    page = Page(CHROMIUM, DRIVER, tmp_path_factory.mktemp("chromium"))
    yield page
    page.close()


@pytest.fixture
def open_page(browser: Page) -> Iterator[Callable[..., Page]]:
    """Makes the browser that of a device, empty, and empties it afterwards: a page that is open goes on drawing."""

    def opened(dark: bool = False, phone: bool = False) -> Page:
        browser.become(dark, phone)
        return browser

    yield opened
    browser.forget()


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """A desktop browser that knows no token."""
    return open_page()


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with TrackingServer(f"sqlite:///{folder / 'mlflow.db'}", "127.0.0.1", free_port(), folder / "log") as tracking:
        yield tracking.url


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Invented]:
    with RunningServer(settings_in(tmp_path_factory.mktemp("shared-server"))) as server:
        yield invent(server)


@pytest.fixture
def shared(kept: Invented) -> Invented:
    """For tests that only look."""
    kept.beat()
    return kept


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Invented]:
    """For tests that change something."""
    with RunningServer(settings_in(tmp_path)) as server:
        yield invent(server)
