"""What a server is started with, and the token that its administrator starts with."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from epochal.errors import UsageError
from epochal.files import write_atomically
from epochal.ledger.values import Role
from epochal.redaction import said
from epochal.settings import DEFAULT_RETENTION, DEFAULT_SERVER_PORT, Retention

_OTHERS = 0o077
_EVERYONE = 0o007


@dataclass(frozen=True)
class FileToken:
    """A token that is in a file rather than in the ledger: of a program that is installed together with the server."""

    user: str
    role: Role
    path: Path

    @classmethod
    def parse(cls, text: str) -> FileToken:
        """
        >>> FileToken.parse("pool:agent=/etc/epochal/agent").role
        <Role.AGENT: 'agent'>

        Raises:
            UsageError: it is not ``USER:ROLE=FILE``.
        """
        found = re.fullmatch(rf"(?P<user>[^:=\s]+):(?P<role>{'|'.join(Role)})=(?P<path>.+)", text)
        if found is None:
            raise UsageError(f"expected USER:ROLE=FILE with a role of {', '.join(Role)}, got {text!r}")
        return cls(found["user"], Role(found["role"]), Path(found["path"]))

    def secret(self) -> str:
        """
        Raises:
            UsageError: there is no such file, others can read it, or it holds no token.
        """
        try:
            return _read(self.path, _EVERYONE)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the token file {self.path} cannot be read: {said(error)}") from error


@dataclass(frozen=True)
class ServerSettings:
    """
    Args:
        ledger_url: ``sqlite:///PATH`` or ``postgresql://...``.
        storage_url: a folder or any fsspec URL: code packages and logs are kept there.
        mlflow_uri: the tracking server that runs are recorded on; its address is shown, and its runs are reconciled.
        single_user: this machine's user alone: ``token_file`` holds that person's token, for loopback only.
        token_file: a file with an administrator's token, made where it is missing.
        more_tokens: tokens in files that are there already.
        upgrade: whether a ledger of an older version is brought up to date, or refused.
        retention: how long logs and code of jobs that have ended are kept.
    """

    ledger_url: str
    storage_url: str
    host: str = "127.0.0.1"
    port: int = DEFAULT_SERVER_PORT
    mlflow_uri: str | None = None
    single_user: bool = False
    token_file: Path | None = None
    more_tokens: tuple[FileToken, ...] = ()
    upgrade: bool = True
    retention: Retention = DEFAULT_RETENTION


def file_secret(path: Path, single_user: bool) -> str:
    """The token in ``path``, made where there is none; readable by its owner alone.

    Raises:
        UsageError: others can read it, or it cannot be read or written, or holds no token.
    """
    try:
        if not path.exists():
            _make(path)
        return _read(path, _OTHERS if single_user else _EVERYONE)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the token file {path} cannot be read: {said(error)}") from error


def _read(path: Path, refused: int) -> str:
    mode = path.stat().st_mode
    if mode & refused:
        raise UsageError(f"others can read the token file {path} (mode {mode & 0o777:o})", f"chmod 600 {path}")
    secret = path.read_text(encoding="ascii").strip()
    if len(secret) < 32 or not secret.isprintable() or " " in secret:
        raise UsageError(f"the token file {path} holds no token", "remove it, and the server makes a new one")
    return secret


def _make(path: Path) -> None:
    """Whole or not at all. The file of another server that makes one at this moment is left: its token is in use."""
    draft = path.with_name(f".{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(draft, f"ep_{secrets.token_urlsafe(32)}\n", 0o600)
        with suppress(FileExistsError):
            os.link(draft, path)  # not a rename, which would replace it
    except OSError as error:
        raise UsageError(f"the token file {path} cannot be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
