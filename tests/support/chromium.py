"""One Chromium, and what a person does with it."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

WAIT_SECONDS = 60.0
SCREENSHOTS = "KEEP_SCREENSHOTS_IN"


class Page:
    """One Chromium. ``wait`` waits for what a person would wait for."""

    def __init__(self, chromium: str, driver: str, folder: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for argument in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--no-proxy-server", "--disable-background-networking", f"--user-data-dir={folder}",
            "--window-size=1440,1000",
            "--force-prefers-reduced-motion",  # what moves would be drawn anew all the time
            # A page that a test has left would be kept, with the long poll for its logs, and six connections are all.
            "--disable-features=BackForwardCache",
        ):  # fmt: skip
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        environment = {**os.environ, "SE_OFFLINE": "true"}
        service = webdriver.ChromeService(driver, env=environment)
        self.driver = webdriver.Chrome(options=options, service=service)

    def become(self, dark: bool = False, phone: bool = False) -> None:
        """A desktop's browser or a phone's, of a person who prefers light or dark pages."""
        # Said in any case: the machine that tests may prefer either.
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        if phone:
            metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        else:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def close(self) -> None:
        self.driver.quit()

    def forget(self) -> None:
        """As a new tab: no token, no page, no complaints."""
        if self.driver.current_url.startswith("http"):
            self.run("sessionStorage.clear()")
        self.driver.get("about:blank")
        self.complaints()

    def open(self, url: str, secret: str | None = None, job: str | None = None) -> None:
        parts = [f"token={secret}"] if secret else []
        parts += [f"job={quote(job)}"] if job else []
        self.driver.get("about:blank")
        self.driver.get(f"{url}/#{'&'.join(parts)}")

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return " ".join(self.one(selector).text.split())

    def texts(self, selector: str) -> list[str]:
        return [" ".join(element.text.split()) for element in self.all(selector) if element.is_displayed()]

    def row(self, table: str, job: str) -> WebElement:
        """The row of a table (``running``, ``queue``, ``recent``) that names this job."""
        for row in self.all(f"#{table} > tr"):
            if job in row.text:
                return row
        raise AssertionError(f"{job} is not in {table}: {self.text(f'#{table}')}")

    def press(self, button: str, within: Callable[[], WebElement] | None = None) -> None:
        """Press a button as soon as it is there; rows come and go while one looks for it."""
        self.wait(lambda: self._pressed(button, within() if within else self.one("body")), f"the button {button}")

    def _pressed(self, button: str, place: WebElement) -> bool:
        names = place.find_elements(By.TAG_NAME, "button")
        found = [one for one in names if one.text == button and one.is_displayed()]
        for one in found:
            one.click()
        return bool(found)

    def wait(self, condition: Callable[[], Any], what: str = "", seconds: float = WAIT_SECONDS) -> Any:
        until = time.monotonic() + seconds
        while True:
            try:
                if found := condition():
                    return found
            except (AssertionError, StaleElementReferenceException):
                pass
            if time.monotonic() > until:
                raise AssertionError(f"waited in vain for {what or condition}: {self.text('body')[:2000]}")
            time.sleep(0.1)  # each look at a page costs the browser a layout of it

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """What the browser wrote on its console since it was last asked, but for what it says of a user who is faster
        than the page: the focus is where they put it."""
        written = (entry["message"] for entry in self.driver.get_log("browser"))
        return [json.dumps(one) for one in written if "Autofocus processing was blocked" not in one]

    def shoot(self, name: str) -> None:
        """A picture of the whole page for the folder ``KEEP_SCREENSHOTS_IN``, where that is set."""
        if not (folder := os.environ.get(SCREENSHOTS)):
            return
        size = self.run("const d = document.documentElement; return [d.clientWidth, d.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": min(size[1], 4000), "scale": 1}
        shot = {"captureBeyondViewport": True, "clip": clip}
        picture = self.driver.execute_cdp_cmd("Page.captureScreenshot", shot)["data"]
        (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(picture))
