"""SIGKILL of every part of Epochal at every moment of a job, down for a while: the job ends as if nothing had been."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from foreground import Curve
from matrix import CASES, ROWS, STEPS, Case, run_case, spec
from stack import Stack

from postgres import binaries
from unbroken import unbroken_curve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(binaries() is None, reason="PostgreSQL is not installed (apt install postgresql)"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Curve:
    """The curve of the matrix's job left alone."""
    curve = unbroken_curve(tmp_path_factory.mktemp("unbroken"), spec().spec)
    assert [step for step, _ in curve] == list(range(1, STEPS + 1))
    return curve


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fault_costs_nothing_that_counts(
    stack: Stack, case: Case, unbroken: Curve, pytestconfig: pytest.Config
) -> None:
    row = run_case(stack, case, unbroken)
    pytestconfig.stash.setdefault(ROWS, []).append(row)
    assert not row.problems, row
