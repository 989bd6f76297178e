"""SIGKILL of every part of Epochal at every moment of a job, down for a while: the job ends as if nothing had been."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from foreground import Curve
from matrix import CASES, ROWS, Case, run_case, unbroken_curve
from stack import Stack

from postgres import binaries

pytestmark = [
    pytest.mark.skipif(binaries() is None, reason="PostgreSQL is not installed (apt install postgresql)"),
    pytest.mark.timeout(600),
]
QUICK = Case("worker", "running", 0)
"""The one that is not slow."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="module")
def unbroken(stack: Stack) -> Curve:
    """The curve of the matrix's job left alone."""
    return unbroken_curve(stack)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=str(case), marks=() if case == QUICK else pytest.mark.slow) for case in CASES]
)
def test_a_fault_costs_nothing_that_counts(
    stack: Stack, case: Case, unbroken: Curve, pytestconfig: pytest.Config
) -> None:
    row = run_case(stack, case, unbroken)
    pytestconfig.stash.setdefault(ROWS, []).append(row)
    assert not row.problems, row
