"""How those who run in a place hear that they are to end."""

from __future__ import annotations

import pytest

from epochal.engine.gang import Stop


@pytest.mark.parametrize("before", [True, False])
def test_whoever_comes_late_hears_it_too(before: bool) -> None:
    stop, heard = Stop(), list[str]()
    calls = [stop.request, stop.kill]
    if before:
        for call in calls:
            call()
    with stop.heard_by(lambda: heard.append("requested"), lambda: heard.append("killed")):
        if not before:
            for call in calls:
                call()
        assert heard == ["requested", "killed"]
    stop.kill()
    assert heard == ["requested", "killed"], "it listens no more"
