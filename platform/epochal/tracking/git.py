"""The state of the git repository that code is in. Needs git alone, so that a thin client can tell it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from epochal.urls import without_password

MAX_DIFF_BYTES = 1024 * 1024
_MOST = 100
_SECRET_FILES = (
    ".env*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", "*.tfvars", "id_rsa*", "id_ed25519*",
    "id_ecdsa*", "*secret*", "*credential*", "*password*", "*_token", "*_token.*", "*.token", ".netrc", ".npmrc",
    ".pypirc", ".htpasswd",
)  # fmt: skip
"""Names of files and folders, in any case, whose content no diff may show."""


@dataclass(frozen=True)
class GitState:
    """``commit`` and ``branch`` (empty where detached) of a repository; ``diff`` is what differs from the commit.

    ``untracked`` names the files that git does not know: the first hundred, and how many more there are.
    ``truncated``: the diff went on.
    """

    commit: str
    branch: str
    url: str
    dirty: bool
    untracked: tuple[str, ...]
    diff: str
    truncated: bool

    @property
    def described(self) -> dict[str, Any]:
        """All but the diff."""
        return {name: value for name, value in asdict(self).items() if name != "diff"}

    @property
    def tags(self) -> dict[str, str]:
        """Under the names that the MLflow UI knows."""
        found = {"commit": self.commit, "branch": self.branch, "repoURL": self.url, "dirty": str(self.dirty).lower()}
        return {f"mlflow.source.git.{name}": value for name, value in found.items() if value}


def git_state(folder: Path) -> GitState | None:
    """The state of the repository that ``folder`` is in; None where there is none, or no git."""
    commit = _git(folder, "rev-parse", "--verify", "HEAD").strip()
    if not commit:
        return None
    patterns = [part for pattern in _SECRET_FILES for part in (pattern, f"{pattern}/**")]
    excluded = [f":(exclude,icase,glob)**/{pattern}" for pattern in patterns]
    diff = _git(folder, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--", ".", *excluded)
    status = _git(folder, "status", "--porcelain", "--untracked-files=normal", "--", ".")
    untracked = tuple(line[3:] for line in status.splitlines() if line.startswith("??"))
    more = len(untracked) - _MOST
    return GitState(
        commit=commit,
        branch=_git(folder, "symbolic-ref", "--quiet", "--short", "HEAD").strip(),
        url=without_password(_git(folder, "config", "--get", "remote.origin.url").strip()),
        dirty=bool(status.strip()),
        untracked=(*untracked[:_MOST], *([f"... and {more:,} more"] if more > 0 else [])),
        diff=diff,
        truncated=len(diff.encode()) >= MAX_DIFF_BYTES,
    )


def _git(folder: Path, *arguments: str) -> str:
    """The output of a git command, up to ``MAX_DIFF_BYTES``; empty where it fails.

    It takes no locks, and runs no program that the repository's own settings name.
    """
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
    except OSError:
        return ""
    with process:  # no more is read than is kept: a diff may be of gigabytes
        output = process.stdout.read(MAX_DIFF_BYTES) if process.stdout else b""
        cut = len(output) == MAX_DIFF_BYTES
        if cut:
            process.kill()
        code = process.wait()
    return output.decode(errors="replace") if code == 0 or cut else ""
