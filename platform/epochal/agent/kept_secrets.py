"""The secrets of attempts' leases, in the job's folder until nothing is left to be told of the attempt.

Its logs may be half sent by its end, and MLflow may not have its run: an agent that is started again finds the attempt
over, and tells the ledger by this secret alone.
"""

from __future__ import annotations

import logging
from pathlib import Path

from epochal.agent.logs import unshipped
from epochal.files import write_atomically
from epochal.ledger.values import Held
from epochal.redaction import said
from epochal.tracking.sync_state import has_news, is_pending

_SECRET = ".lease-secret-"

_logger = logging.getLogger(__name__)


def secret_path(folder: Path, attempt: int) -> Path:
    return folder / f"{_SECRET}{attempt}"


def keep_secret(folder: Path, lease: Held) -> None:
    """From the attempt's start on, since its agent may die at any moment."""
    try:
        write_atomically(secret_path(folder, lease.epoch), lease.secret, mode=0o600)
    except OSError as error:
        told = "what the ledger is not told of %s by the end of this agent, it will not be told: %s"
        _logger.warning(told, lease.job_id, said(error))


def secret_of(folder: Path, attempt: int) -> str:
    """Empty where there is none."""
    try:
        return secret_path(folder, attempt).read_text(encoding="ascii")
    except FileNotFoundError:
        return ""


def folders_with_secrets(storage: Path) -> list[Path]:
    """Those of jobs under a storage root."""
    return sorted({kept.parent for kept in storage.glob(f"jobs/*/{_SECRET}*")})


def forget_secrets(folder: Path, newest: int) -> None:
    """Of the attempts up to the ``newest``, which is over: where there is nothing left to be told."""
    if is_pending(folder) or has_news(folder):
        return
    waiting = set(unshipped(folder))
    for attempt in range(1, newest + 1):
        if attempt not in waiting:
            secret_path(folder, attempt).unlink(missing_ok=True)
