"""Dashboards, alerts and their pages name metrics that there are, and all that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from code_base import DOCS, ROOT

from epochal.server.metric_table import ENTRIES, OF_OTHERS, TABLE

FOLDER = ROOT / "dashboards"
DASHBOARDS = sorted(FOLDER.glob("*.json"))
RULES = yaml.safe_load((FOLDER / "prometheus" / "rules.yaml").read_text(encoding="utf-8"))
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
TESTS = (FOLDER / "prometheus" / "rules_test.yaml").read_text(encoding="utf-8")
MONITOR = (DOCS / "how-to" / "monitor.md").read_text(encoding="utf-8")
NAME = re.compile(r"\b(?:epochal|ray)_[a-z_]+\b")
OF_HISTOGRAM = re.compile(r"_(bucket|sum|count)$")
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def name(path: Path) -> str:
    return path.stem


def panels(dashboard: Path) -> Iterator[dict[str, Any]]:
    yield from (one for one in json.loads(dashboard.read_text(encoding="utf-8"))["panels"] if one["type"] != "row")


def named(text: str) -> set[str]:
    return {OF_HISTOGRAM.sub("", one) for one in NAME.findall(text)}


def expressions() -> str:
    asked = [target["expr"] for path in DASHBOARDS for panel in panels(path) for target in panel["targets"]]
    return "\n".join([*asked, *(rule["expr"] for rule in ALERTS.values())])


def test_every_metric_that_is_asked_for_is_in_the_table() -> None:
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "runbooks").glob("*.md"))
    assert not named(f"{expressions()}\n{pages}\n{TESTS}") - {*TABLE, *OF_OTHERS}


def test_every_metric_of_the_table_is_asked_for_and_its_page_tells_of_it() -> None:
    assert not set(TABLE) - named(expressions())
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", MONITOR, re.MULTILINE))
    assert rows == {one.name: " | ".join((", ".join(one.labels), one.help)) for one in ENTRIES}


def test_no_label_is_one_that_prometheus_gives() -> None:
    given = {"job", "instance", "pod", "namespace", "container", "service", "endpoint", "node", "cluster"}
    assert not {one.name for one in ENTRIES if given & set(one.labels)}


def test_names_say_what_they_are() -> None:
    """As Prometheus has it: https://prometheus.io/docs/practices/naming."""
    assert all(one.name.endswith("_total") == (one.kind == "counter") for one in ENTRIES)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=name)
def test_dashboard_fits_any_grafana(dashboard: Path) -> None:
    document = json.loads(dashboard.read_text(encoding="utf-8"))
    assert (document["id"], document["uid"]) == (None, f"epochal-{dashboard.stem}")
    first, *others = document["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    assert all(one["datasource"] == DATASOURCE for one in [*others, *panels(dashboard)])
    assert all(target["datasource"] == DATASOURCE for panel in panels(dashboard) for target in panel["targets"])
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    places = [tuple(panel["gridPos"].values()) for panel in document["panels"]]
    assert len(set(places)) == len(places)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in document["panels"])


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_has_a_page_and_is_tested(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    page = ROOT / rule["annotations"]["runbook_url"]
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {alert}: ")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["What it means", "What to look at", "What to do"]
    assert alert in TESTS
    assert f"(../runbooks/{page.name})" in MONITOR


def test_every_page_is_an_alerts() -> None:
    pages = {f"platform/docs/runbooks/{path.name}" for path in (DOCS / "runbooks").glob("*.md")}
    assert pages == {rule["annotations"]["runbook_url"] for rule in ALERTS.values()}


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=name)
def test_what_needs_gpus_says_so(dashboard: Path) -> None:
    gpus = re.compile(r"ray_node_(gpus_|gram_)")
    needs = {panel["title"] for panel in panels(dashboard) if any(gpus.search(one["expr"]) for one in panel["targets"])}
    assert needs == {panel["title"] for panel in panels(dashboard) if "Needs GPUs" in panel["description"]}


def test_alerts_that_need_gpus_say_so() -> None:
    needs = {alert for alert, rule in ALERTS.items() if "ray_node_g" in rule["expr"]}
    assert needs == {
        name for name, rule in ALERTS.items() if "Needs GPUs" in rule["annotations"].get("description", "")
    }
