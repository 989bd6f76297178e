"""The covering array covers, refusals name what they refuse, and the docs say so."""

from __future__ import annotations

from itertools import combinations

import pytest

from covering_array import AXES, PAGE, QUICK, Axes, array, page, pairs, refused


@pytest.mark.parametrize("axes", [AXES, QUICK], ids=["all", "quick"])
def test_the_array_holds_every_pair_that_is_not_refused(axes: Axes) -> None:
    held = {pair for case in array(axes) for pair in combinations(case.items(), 2)}
    assert held == set(pairs(axes)) - refused().keys()
    assert all(set(case) == set(axes) for case in array(axes))


def test_a_refusal_names_the_pair_and_its_line() -> None:
    for (one, other), problem in refused().items():
        assert {one[1], other[1]} <= set(problem.message.replace(",", "").split()), problem
        assert problem.line is not None


def test_the_table_in_the_docs_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"
