"""How `epochal run` exits."""

from __future__ import annotations

import pytest

from epochal.agent.summary import Summary


@pytest.mark.parametrize(
    ("state", "refused", "code"),
    [
        ("SUCCEEDED", False, 0),
        ("FAILED", False, 1),
        ("FAILED", True, 2),
        ("STOPPED", False, 130),
        ("PAUSED", True, 130),
    ],
)
def test_exit_codes(state: str, refused: bool, code: int) -> None:
    assert Summary("job", state, "", "", 1, 1.0, "", "", "", refused=refused).exit_code == code
