"""SIGKILL of every part of Epochal at every moment of a job, down for a while: the job ends as if nothing had been."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from foreground import SLOW_JOB, Curve, Foreground, history
from matrix import CASES, CHANGES, ROWS, STEPS, Case, run_case
from stack import Stack

from postgres import binaries

pytestmark = [
    pytest.mark.skipif(binaries() is None, reason="PostgreSQL is not installed (apt install postgresql)"),
    pytest.mark.timeout(600),
]
QUICK = Case("agent", "running", 0)
"""The one that is not slow."""


@pytest.fixture(scope="session")
def long_unbroken(tmp_path_factory: pytest.TempPathFactory) -> Curve:
    """The curve of the matrix's job left alone."""
    changes = (part for change in CHANGES for part in ("-s", change))
    summary = Foreground.start(tmp_path_factory.mktemp("long"), SLOW_JOB, *changes).finish()
    assert summary["exit"] == 0, summary["stderr"]
    curve = history(summary["tracking_uri"], summary["run_id"])
    assert [step for step, _ in curve] == list(range(1, STEPS + 1))
    return curve


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=str(case), marks=() if case == QUICK else pytest.mark.slow) for case in CASES]
)
def test_a_fault_costs_nothing_that_counts(
    stack: Stack, case: Case, long_unbroken: Curve, pytestconfig: pytest.Config
) -> None:
    row = run_case(stack, case, long_unbroken)
    pytestconfig.stash.setdefault(ROWS, []).append(row)
    assert not row.problems, row
