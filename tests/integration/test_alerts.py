"""`promtool` on the alerts and the example of what to scrape: they are valid, and each fires when it should."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "dashboards" / "prometheus"

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Prometheus")


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "rules.yaml"),
        ("check", "config", "--syntax-only", "prometheus.yaml"),
        ("test", "rules", "rules_test.yaml"),
    ],
    ids=["rules", "config", "fire"],
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    came = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60)
    assert came.returncode == 0, came.stdout + came.stderr
