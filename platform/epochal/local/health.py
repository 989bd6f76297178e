"""Is a local service healthy? Asked over HTTP on loopback, past any proxy."""

from __future__ import annotations

import json
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from epochal.local.service_plan import Probe

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def is_healthy(probe: Probe, pid: int, timeout: float = 2.0) -> bool:
    """Whether the service, whose process is ``pid``, answers as it should.

    An answer that cannot be understood is one more way of not being healthy.
    """
    try:
        body = fetch(probe.url, probe.token_file, timeout)
        if probe.agent is None:
            return True
        # By its process and not by when it was heard of: the clock may be set between its start and its first word.
        named = [agent for agent in json.loads(body)["agents"] if agent["name"] == probe.agent]
        return any(agent["alive"] and agent["detail"]["pid"] == pid for agent in named)
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
