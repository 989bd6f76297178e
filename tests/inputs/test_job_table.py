"""Every job in ``jobs/`` runs as it stands and reaches the metric that its file states."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typist import Typist

from epochal.spec import load_spec
from job_table import JOBS, expected, files


def _in_order() -> list[Path]:
    """Those that others start from go first."""
    started = {load_spec(file).spec.train.init_from for file in files()}
    return sorted(files(), key=lambda file: (file.stem not in started, file))


@pytest.mark.slow
@pytest.mark.timeout(7200)  # forty jobs of up to two minutes on idle cores
def test_every_job_reaches_its_metric(typist: Typist) -> None:
    rows, wrong = [], []
    for file in _in_order():
        begun, wanted = time.monotonic(), expected(file)
        done = typist.epochal("run", str(file), "-q", "-o", "json")
        summary: dict[str, Any] = json.loads(done.stdout or "{}")
        value = summary.get("metrics", {}).get(wanted.metric if wanted else "", float("nan"))
        rows.append(f"| `{file.name}` | {wanted} | {value:.4g} | {time.monotonic() - begun:.0f} s |")
        if summary.get("state") != "SUCCEEDED" or wanted is None or not wanted.met(value):
            wrong.append(f"{file.name}: {summary.get('state')}, expected {wanted}, found {value}")
    print("\n".join(["| job | expected | found | time |", "|---|---|---|---|", *rows]))
    assert not wrong
    assert len(rows) == len(list(JOBS.glob("*.yaml")))
