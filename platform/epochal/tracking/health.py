"""Is the tracking server there? Asked without loading mlflow."""

from __future__ import annotations

import httpx

_SECONDS = 5.0


def answers(uri: str) -> bool | None:
    """Whether the tracking server, or the proxy before it, answers with anything but an error of its own. None: ``uri``
    is no server's but a database, which is opened when there is something to record."""
    if not uri.startswith(("http://", "https://")):
        return None
    try:
        return httpx.get(f"{uri.rstrip('/')}/health", timeout=_SECONDS).status_code < 500
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
