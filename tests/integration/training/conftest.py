"""Processes that train together, without Ray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from training_gang import TestGang


@pytest.fixture(scope="session")
def gang() -> Iterator[TestGang]:
    """Three, for all tests of a session: each takes seconds to start."""
    gang = TestGang(3)
    yield gang
    gang.close()
