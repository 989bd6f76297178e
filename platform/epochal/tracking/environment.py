"""What a run ran on: versions, hardware, command line, and the state of the code's git repository."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from epochal.tracking.record import artifacts_folder, write_atomically
from epochal.tracking.system import open_gpus

MAX_DIFF_BYTES = 1024 * 1024
_GIT_SECONDS = 10.0
_SECRET_FILES = (
    ".env*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", "*.tfvars", "id_rsa*", "id_ed25519*",
    "id_ecdsa*", "*secret*", "*credential*", "*password*", "*_token", "*_token.*", "*.token", ".netrc", ".npmrc",
    ".pypirc", ".htpasswd",
)  # fmt: skip
"""Names of files and folders, in any case, whose content no diff may show."""
_DIST_INFO = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)\.dist-info")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_ENV_OVERRIDE = re.compile(r"^((?:-s|--set=)?env\.[^=]+=).*", re.DOTALL)


@dataclass(frozen=True)
class GitState:
    """``commit`` and ``branch`` (empty where detached) of a repository; ``diff`` is what differs from the commit.

    ``untracked`` names the files that git does not know, the first hundred of them. ``truncated``: the diff went on.
    """

    commit: str
    branch: str
    url: str
    dirty: bool
    untracked: tuple[str, ...]
    diff: str
    truncated: bool

    @property
    def tags(self) -> dict[str, str]:
        """Under the names that the MLflow UI knows."""
        found = {"commit": self.commit, "branch": self.branch, "repoURL": self.url, "dirty": str(self.dirty).lower()}
        return {f"mlflow.source.git.{name}": value for name, value in found.items() if value}


def write_environment(folder: Path, code: Path | None = None, argv: Sequence[str] | None = None) -> dict[str, str]:
    """Write ``environment.json`` and ``git.diff`` into a job's artifacts; returns the tags for its run.

    ``code`` is the folder whose repository is meant; ``argv`` the command line, default this process's.
    """
    state = git_state(code) if code else None
    artifacts = artifacts_folder(folder)
    described = describe_environment(sys.argv if argv is None else argv)
    if state:
        described["git"] = {name: value for name, value in asdict(state).items() if name != "diff"}
    write_atomically(artifacts / "environment.json", json.dumps(described, indent=1))
    if state and state.diff:
        write_atomically(artifacts / "git.diff", state.diff)
    return state.tags if state else {}


def describe_environment(argv: Sequence[str]) -> dict[str, Any]:
    """Python, platform, packages, hardware and the command line, as JSON can hold them."""
    return {
        "command": [_ENV_OVERRIDE.sub(r"\1***", argument) for argument in argv],
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "host": platform.node(),
        "hardware": hardware(),
        "packages": package_versions(),
    }


@lru_cache(maxsize=1)
def package_versions() -> dict[str, str]:
    """Every installed distribution and its version.

    Read from the names of the ``.dist-info`` folders: ``importlib.metadata`` opens a file for each.
    """
    found: dict[str, str] = {}
    for entry in sys.path:
        if not os.path.isdir(entry):
            continue
        for name in os.listdir(entry):
            if match := _DIST_INFO.fullmatch(name):
                found.setdefault(match["name"].replace("_", "-").lower(), match["version"])
    return dict(sorted(found.items()))


@lru_cache(maxsize=1)
def hardware() -> dict[str, Any]:
    """CPU, memory and GPUs of this node; sizes in bytes."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.memory_bytes} for gpu in open_gpus()],
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


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
    return GitState(
        commit=commit,
        branch=_git(folder, "symbolic-ref", "--quiet", "--short", "HEAD").strip(),
        url=_CREDENTIALS.sub("", _git(folder, "config", "--get", "remote.origin.url").strip()),
        dirty=bool(status.strip()),
        untracked=untracked[:100],
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
    with process:
        output = process.stdout.read(MAX_DIFF_BYTES) if process.stdout else b""
        cut = len(output) == MAX_DIFF_BYTES
        if cut:
            process.kill()
        code = process.wait(_GIT_SECONDS)
    return output.decode(errors="replace") if code == 0 or cut else ""
