"""The software that something ran with. Needs nothing installed, so that a thin client can tell it."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_DIST_INFO = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)\.dist-info")
_ENV_OVERRIDE = re.compile(r"^((?:-s|--set=)?\s*env(?:\.[^=]+)?\s*=).*", re.DOTALL)


def describe_software(argv: Sequence[str]) -> dict[str, Any]:
    """Python, platform, packages and the command line, as JSON can hold them."""
    return {
        "command": list(without_values(argv)),
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "host": platform.node(),
        "packages": package_versions(),
    }


def without_values(argv: Sequence[str]) -> tuple[str, ...]:
    """A command line without the values of the environment variables that it sets."""
    return tuple(_ENV_OVERRIDE.sub(r"\1***", argument) for argument in argv)


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
