"""The token with which the local agent comes to the local server, in a private file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from epochal.files import write_atomically
from epochal.settings import Home

if TYPE_CHECKING:
    from epochal.ledger.ledger import Ledger

AGENT = "local"
"""The agent's name, and that of the user its token is for."""

_NAME = "epochal up"


def agent_token_path(home: Home) -> Path:
    return home.services / "agent.token"


def ensure_agent_token(home: Home) -> None:
    """Have a token of role agent beside the services' state; one of an earlier time is kept where it is still good.

    The secret is in that file alone, never in arguments or the environment. The token for the commands on this
    machine is the server's to make: ``home.token``.
    """
    from epochal.ledger.ledger import Ledger

    path = agent_token_path(home)
    with Ledger.open(home.served.ledger_url) as ledger:
        if _is_good(ledger, path):
            return
        for token in ledger.tokens():
            if (token.user, token.name) == (AGENT, _NAME) and token.revoked_at is None:
                ledger.revoke_token(token.id)
        _, secret = ledger.create_token(AGENT, "agent", _NAME)
        write_atomically(path, f"{secret}\n", 0o600)


def _is_good(ledger: Ledger, path: Path) -> bool:
    """Whether the file holds a token that works, and nobody else could have read it."""
    try:
        if path.stat().st_mode & 0o077:
            return False
        token = ledger.token(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return False
    return token is not None and token.role == "agent"
