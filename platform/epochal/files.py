"""Files that are there whole or not at all, files of lines, and files that one process at a time may hold."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from epochal.redaction import said

_RETRY_SECONDS = 0.01
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP})
_logger = logging.getLogger(__name__)


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


def leads_out(path: Path, root: Path) -> bool:
    """Whether a link on the way leads out of ``root``: who may write there may not have others read for him what they
    alone may read."""
    # Not `Path.resolve`, which raises where a link leads to itself: whoever writes there may make one.
    return not Path(os.path.realpath(path)).is_relative_to(root.resolve())


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


class LineWriter:
    """Appends lines to a file. It blocks nobody and fails nobody: a line that the disk does not take is kept, and is
    written with the next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unwritten = b""

    def write(self, line: bytes) -> None:
        self._unwritten += line
        try:
            with self._path.open("ab", buffering=0) as file:
                while self._unwritten:
                    self._unwritten = self._unwritten[file.write(self._unwritten) :]
        except OSError as error:
            _logger.warning("%s cannot be written, what it lacks is kept in memory: %s", self._path, said(error))


def new_lines(path: Path, offset: int) -> Iterator[bytes]:
    """The whole lines of a file from ``offset`` on, each with its newline; none where there is no file."""
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        return
    if size <= offset:
        return
    with path.open("rb") as file:
        file.seek(offset)
        yield from (line for line in file if line.endswith(b"\n"))


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
    """Whether a living process has the lock.

    Raises:
        OSError: the file system has no locks, so that nobody can tell; it names the file.
    """
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        error.filename = str(path)
        raise
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
