"""The chart brings the alerts and dashboards of `dashboards/`, as they are."""

from __future__ import annotations

import json
from pathlib import Path

import helm_python as helm
import yaml

import chart_files

ROOT = Path(__file__).parents[2]
VALUES = chart_files.CHART / "ci" / "production-values.yaml"


def test_alerts_and_dashboards_are_those_of_the_folder() -> None:
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    values["monitoring"] = {**values["monitoring"], "prometheusRule": True, "dashboards": True}
    rendered = helm.Chart.load(chart_files.CHART).render(values, name="epochal", namespace="training")
    [text] = [text for name, text in rendered.items() if name.endswith("/monitoring.yaml")]
    objects = {one["kind"]: one for one in yaml.safe_load_all(text) if one}
    rules = yaml.safe_load((ROOT / "dashboards" / "prometheus" / "rules.yaml").read_text(encoding="utf-8"))
    assert objects["PrometheusRule"]["spec"] == rules
    dashboards = {path.name: path for path in (ROOT / "dashboards").glob("*.json")}
    data = objects["ConfigMap"]["data"]
    assert set(data) == set(dashboards)
    assert all(
        json.loads(data[name]) == json.loads(path.read_text(encoding="utf-8")) for name, path in dashboards.items()
    )
