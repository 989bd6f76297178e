"""What the tests of clients share."""

from __future__ import annotations

import math

import pytest

from epochal.client import http


@pytest.fixture
def asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is given up at once, not asked again for most of a second."""
    monkeypatch.setattr(http, "pause_after", lambda failures: math.inf)
