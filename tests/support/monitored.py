"""A Prometheus that is asked what the dashboards and alerts ask it."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from epochal.urls import free_port
from polling import PATIENCE_SECONDS, until

FOLDER = Path(__file__).parents[2] / "dashboards"
GPUS, KUBERNETES = "Needs GPUs", "Needs Kubernetes"
"""Said in the description of what has no data without."""

Asked = tuple[str, str]
"""Who asks, and what."""


def panels(dashboard: str, *without: str) -> Iterator[Asked]:
    """What each panel asks for, but for those that need what there is not."""
    for panel in json.loads((FOLDER / f"{dashboard}.json").read_text(encoding="utf-8"))["panels"]:
        if not any(need in panel.get("description", "") for need in without):
            for target in panel.get("targets", ()):
                yield f"{dashboard}: {panel['title']}", target["expr"]


def alerts(*without: str) -> Iterator[Asked]:
    """What each alert compares, be it too much or not, but for those that need what there is not."""
    rules = yaml.safe_load((FOLDER / "prometheus" / "rules.yaml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            if not any(need in rule["annotations"].get("description", "") for need in without):
                compared = re.sub(r"(>=|==|>|<)(?= )", r"\1 bool", rule["expr"])
                inner = re.sub(r"^absent\((.*)\)$", r"\1", compared)
                yield rule["alert"], re.sub(r"offset \d+m", "offset 5s", inner)


class Prometheus:
    """The one at ``url``."""

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

    def until_all_have_data(self, asked: list[Asked], job_id: str, seconds: float = PATIENCE_SECONDS) -> None:
        """At one and the same time, of that job where one is meant.

        Raises:
            AssertionError: some still have none after so many seconds; it names them.
        """
        filled = [(who, what.replace("$job_id", job_id).replace("$__rate_interval", "1m")) for who, what in asked]
        left = filled

        def have() -> bool:
            nonlocal left
            left = [one for one in filled if not self.has(one[1])]
            return not left

        try:
            until(have, "all have data", seconds)
        except AssertionError as error:
            raise AssertionError(f"without data: {left}") from error


def _is_ready(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=10) as answer:
        return bool(answer.status == 200)
    return False


@contextmanager
def prometheus(folder: Path, read: Mapping[str, list[str]], token: str) -> Iterator[Prometheus]:
    """One that reads these URLs, by the name of what is there, and shows the token."""
    (folder / "token").write_text(token)
    port, settings = free_port(), folder / "prometheus.yaml"
    scraped = [
        {
            "job_name": name,
            "authorization": {"credentials_file": str(folder / "token")},
            "static_configs": [{"targets": [url.removeprefix("http://") for url in urls]}],
        }
        for name, urls in read.items()
    ]
    settings.write_text(json.dumps({"global": {"scrape_interval": "5s"}, "scrape_configs": scraped}))
    options = (f"--config.file={settings}", f"--storage.tsdb.path={folder / 'data'}")
    process = subprocess.Popen(
        ["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL
    )
    try:
        until(partial(_is_ready, port), "Prometheus is ready")
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()
