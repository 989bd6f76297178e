"""The ledger that its contract is held against: once on each database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from databases import ledger_url, new_ledger_url, postgres  # noqa: F401 - fixtures
from epochal.catalog.lean_torchmetrics import lean_torchmetrics
from epochal.ledger.ledger import Ledger
from unsynced import no_waiting_for_the_disk  # noqa: F401 - a fixture

with lean_torchmetrics():  # as the platform does; the first test to import it would bring matplotlib
    import torchmetrics  # noqa: F401


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:  # noqa: F811
    with Ledger.open(ledger_url) as opened:
        yield opened
