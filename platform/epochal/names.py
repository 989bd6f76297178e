"""What users, agents, queues and jobs can be called: the same for who sends a name and for who takes it."""

from __future__ import annotations

import re
from urllib.parse import quote

from epochal.errors import UsageError

USER = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$"
QUOTA = r"^([A-Za-z0-9][A-Za-z0-9._@-]{0,99}|\*)$"
AGENT = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
JOB_ID = r"^[a-z0-9][a-z0-9-]{0,99}$"
DIGEST = r"^[0-9a-f]{64}$"
"""SHA-256 of what is named by it."""
_ASKED_JOB = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$"
"""Wider than any job's name: for what is nearly one, the server knows the closest."""

_LETTERS = "letters, digits and {} after a first letter or digit, 100 at the most"
_JOB = "a job's id or name has lower-case letters, digits and dashes: `epochal jobs` lists them"
_LOOKS = {
    "job": (_ASKED_JOB, _JOB),
    "user": (USER, f"a user has {_LETTERS.format('. _ @ -')}"),
    "queue": (USER, f"a queue has {_LETTERS.format('. _ @ -')}"),
    "agent": (AGENT, f"an agent has {_LETTERS.format('. _ -')}"),
    "token": (AGENT, "`epochal token list` shows the ids of tokens"),
    "quota": (QUOTA, f"a quota's user or queue has {_LETTERS.format('. _ @ -')}; * is everybody else"),
    "code package": (DIGEST, "code is named by its SHA-256"),
}
"""Kind -> the pattern of its names, and what to tell of it."""


def checked_name(kind: str, name: str) -> str:
    """
    >>> checked_name("job", "jobs/mnist.yaml")
    Traceback (most recent call last):
    epochal.errors.UsageError: no job can be called 'jobs/mnist.yaml'

    Raises:
        UsageError: nothing of that kind can have this name.
    """
    pattern, looks = _LOOKS[kind]
    if not re.fullmatch(pattern.removesuffix("$"), name):
        raise UsageError(f"no {kind} can be called {name!r}", looks)
    return name


def in_path(kind: str, name: str) -> str:
    """The name as one part of a URL's path.

    Raises:
        UsageError: nothing of that kind can have this name.
    """
    return quote(checked_name(kind, name), safe="")
