"""Files that are there whole or not at all, and files that one process at a time may hold."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RETRY_SECONDS = 0.01
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP})


def write_atomically(path: Path, content: str | bytes, mode: int = 0o666) -> None:
    """A reader sees the old file or the new one, never half of one, whoever else writes it at this moment.

    ``mode`` (less the umask) is the draft's too: what is private is so from its first byte on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{os.getpid()}.{secrets.token_hex(4)}")  # without the name, which may be as long as can be
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        draft.replace(path)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # of a write: a full disk
            error.filename = str(path)
        raise


def require_writable(folder: Path) -> None:
    """Make the folder, where there is none.

    Raises:
        OSError: it cannot be made, or no file can be made in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        error.filename = str(folder)
        raise


def sync(path: Path, parents: int = 0) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk, and the names in that many ``parents``.

    A new file whose name is not there is lost with the power, whatever became of its content.
    """
    for one in (path, *path.parents[:parents]):
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def locked(path: Path, seconds: float, mode: int = 0o666) -> Iterator[bool]:
    """Whether this process has the lock within the ``with`` block; it waits up to ``seconds`` for it.

    The kernel frees the lock of a process that dies, however it dies. A file system without locks has nobody to wait
    for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, mode)
    try:
        yield _lock(descriptor, time.monotonic() + seconds)
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a living process has the lock."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int, deadline: float) -> bool:
    import fcntl  # not on Windows, where the client runs

    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return True
            raise
        time.sleep(_RETRY_SECONDS)
