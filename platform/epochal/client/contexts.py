"""The servers that commands can talk to: ``config.yaml`` in the home.

current: team
contexts:
  team: {server: "https://epochal.example.org", token: ep_...}
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import yaml

from epochal.client.checks import checked_token, checked_url
from epochal.errors import NotFoundError, UnreachableError, UsageError
from epochal.files import write_atomically
from epochal.redaction import said


@dataclass(frozen=True)
class Context:
    """A server by a name of the user's own, and the token for it."""

    name: str
    server: str
    token: str | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Without the token."""
        return {"name": self.name, "server": self.server, "has_token": self.token is not None}


@dataclass(frozen=True)
class Config:
    """Every context, and the one that commands use where none is named."""

    contexts: Mapping[str, Context] = field(default_factory=dict)
    current: str | None = None

    @classmethod
    def load(cls, path: Path) -> Self:
        """The config in a file; an empty one where there is no file.

        Raises:
            UsageError: it is not such a file, or others than its owner can read the tokens in it.
            UnreachableError: the system does not let it be read.
        """
        try:
            with path.open(encoding="utf-8") as file:
                mode = os.fstat(file.fileno()).st_mode  # of what is read, also where another file takes its place
                stored = yaml.safe_load(file) or {}
        except FileNotFoundError:
            return cls()
        except OSError as error:
            hint = "set EPOCHAL_HOME to a folder that you can write"
            raise UnreachableError(f"{path} cannot be read: {error.strerror}", hint) from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # of a date that there is not, for one
            hint = "mend it, or move it away: `epochal login` writes a new one"
            raise UsageError(f"{path} cannot be read: {said(error)}", hint) from error
        config = cls._of(stored, path)
        if stat.S_IMODE(mode) & 0o077 and any(context.token for context in config.contexts.values()):
            raise UsageError(f"{path} holds tokens, and others can read it", f"chmod 600 {path}")
        return config

    @classmethod
    def _of(cls, stored: Any, path: Path) -> Self:
        try:
            listed = [_context(str(name), fields, path) for name, fields in stored.get("contexts", {}).items()]
            return cls({one.name: one for one in listed}, stored.get("current"))
        except (AttributeError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} does not list contexts as they should be", "`epochal login` writes one"
            ) from error

    def save(self, path: Path) -> None:
        """Write it, readable by its owner alone."""
        stored = {
            "current": self.current,
            "contexts": {
                one.name: {"server": one.server, **({"token": one.token} if one.token else {})}
                for one in self.contexts.values()
            },
        }
        write_atomically(path, yaml.safe_dump(stored, sort_keys=False), 0o600)

    def context(self, name: str) -> Context:
        """
        Raises:
            NotFoundError: no context has this name.
        """
        if name not in self.contexts:
            hint = "" if self.contexts else "`epochal login` makes one"
            raise NotFoundError("context", name, tuple(self.contexts), hint)
        return self.contexts[name]

    def using(self, name: str) -> Config:
        """With another current context."""
        return replace(self, current=self.context(name).name)

    def having(self, context: Context) -> Config:
        """With a context added or replaced, which becomes the current one."""
        return Config({**self.contexts, context.name: context}, context.name)

    def without(self, name: str) -> Config:
        gone = self.context(name).name
        left = {other: context for other, context in self.contexts.items() if other != gone}
        return Config(left, None if self.current == gone else self.current)


def _context(name: str, fields: Mapping[str, Any], path: Path) -> Context:
    try:
        server = checked_url(str(fields["server"]))
    except UsageError as error:
        raise UsageError(f"{path} (context {name}): {error}", error.hint) from error
    if (token := fields.get("token")) is not None:
        token = checked_token(str(token), f"the token of the context {name} in {path}")
    return Context(name, server, token)
