"""Names for jobs that people can read, sort and shorten: ``digits-cnn-1t4zk0w8``."""

from __future__ import annotations

import re
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case: no i, l, o, u to misread
_DIGITS = 8
_START = 1_735_689_600  # 2025-01-01; 8 digits of 1/1024 s last until 2059
_NAME_LENGTH = 40  # keeps an id within the 63 characters of a Kubernetes label


def submission_key(submitted_by: str, key: str | None) -> str | None:
    """A client's own id for a submission, as the ledger keeps it: each user's keys are apart."""
    return None if key is None else f"{submitted_by}/{key}"


def job_id(name: str, again: int = 0) -> str:
    """A new id: the name, then the time it was made at (to 1/1024 s), so that ids of one name sort by age.

    ``again`` counts the ids tried before that were taken; each try moves on by a random bit of time.
    """
    ticks = max(0, int((time.time() - _START) * 1024)) + (secrets.randbelow(32 * again) if again else 0)
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_NAME_LENGTH].strip("-")
    digits = (_ALPHABET[(ticks >> shift) & 31] for shift in range(5 * (_DIGITS - 1), -1, -5))
    return f"{readable or 'job'}-{''.join(digits)}"
