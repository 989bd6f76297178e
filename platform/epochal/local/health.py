"""Is a local service healthy? Asked over HTTP on loopback, past any proxy."""

from __future__ import annotations

import json
import urllib.request
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from epochal.local.service_plan import Probe

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def is_healthy(probe: Probe, since: float, timeout: float = 2.0) -> bool:
    """Whether the service answers as it should. ``since``: when it was started, in seconds of the epoch.

    An answer that cannot be understood is one more way of not being healthy.
    """
    try:
        body = fetch(probe.url, probe.token_file, timeout)
        return probe.agent is None or _is_there(json.loads(body), probe.agent, since)
    except (OSError, HTTPException, ValueError, LookupError, TypeError, AttributeError):
        return False


def ask(url: str, token_file: str | None, timeout: float = 2.0) -> Any:
    """The JSON at ``url``; None where nobody answers."""
    try:
        return json.loads(fetch(url, token_file, timeout))
    except (OSError, HTTPException, ValueError):
        return None


def fetch(url: str, token_file: str | None, timeout: float) -> bytes:
    """The body of an answer with a status of success.

    Raises:
        OSError, HTTPException: there is no such answer.
    """
    request = urllib.request.Request(url)
    if token_file is not None:
        request.add_header("Authorization", f"Bearer {Path(token_file).read_text().strip()}")
    with _OPENER.open(request, timeout=timeout) as answer:
        body: bytes = answer.read()
    return body


def _is_there(document: Any, name: str, since: float) -> bool:
    heard_of = [agent["seen_at"] for agent in document["agents"] if agent["name"] == name and agent["alive"]]
    return any(datetime.fromisoformat(moment).timestamp() >= since for moment in heard_of)
