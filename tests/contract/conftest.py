"""The ledger that its contract is held against: once on each database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from databases import ledger_url, new_ledger_url, postgres  # noqa: F401 - fixtures
from epochal.ledger.ledger import Ledger


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:  # noqa: F811
    with Ledger.open(ledger_url) as opened:
        yield opened
