"""Text and JSON that every database takes: no NUL, no lone surrogate, no NaN."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

MESSAGE_LIMIT = 20_000


def text(message: str, limit: int = MESSAGE_LIMIT) -> str:
    """``message`` as PostgreSQL can store it, its middle left out where it has more than ``limit`` characters."""
    clean = message.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")
    if len(clean) <= limit:
        return clean
    half = limit // 2
    return f"{clean[:half]}\n... {len(clean) - 2 * half} characters left out ...\n{clean[-half:]}"


def encode(document: Any) -> str:
    """JSON; NaN and infinity, which JSON has no word for, become text."""
    return json.dumps(_finite(document), allow_nan=False, default=str)


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of the JSON with sorted keys: equal for equal documents."""
    canonical = json.dumps(_finite(document), allow_nan=False, default=str, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
