"""The server that ``epochal up`` runs on this machine, from the file in which its supervisor tells how things are."""

from __future__ import annotations

import json
from typing import Any

from epochal.settings import Home

_STATE = "state.json"
_GONE = "stopped"


def local_server(home: Home) -> str | None:
    """Its URL; None where ``up`` has not been run here, or ``down`` since."""
    try:
        stored = json.loads((home.services / _STATE).read_text(encoding="utf-8"))
        return next((url for service in stored["services"] if (url := _url(service))), None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _url(service: dict[str, Any]) -> str:
    here = service["name"] == "server" and service.get("state") != _GONE
    return str(service.get("url") or "") if here else ""
