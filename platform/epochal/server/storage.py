"""A folder for bytes, local or behind any fsspec URL (``s3://bucket/epochal``).

Names are made of parts that are checked one by one, so no request can lead out of the folder.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from epochal.errors import UnreachableError, UsageError
from epochal.files import sync
from epochal.redaction import said
from epochal.urls import without_password

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_BLOCK = 2**20
_HINT = "is the storage reachable and writable, is its disk full? see --storage of `epochal server`"


class Storage:
    """Files by name. A name is several parts, without any slash in them.

    Every method raises ``UnreachableError`` where the storage does not answer or cannot be written.
    """

    def __init__(self, url: str) -> None:
        try:
            if "://" in url:
                self._files, root = fsspec.url_to_fs(url)
            else:  # a folder, of whose name fsspec would take parts for protocols
                self._files, root = LocalFileSystem(), Path(url).expanduser().absolute()
        except (ValueError, ImportError) as error:
            expected = "expected a folder, or an fsspec URL whose file system is installed"
            raise UsageError(f"{without_password(url)!r} cannot be used as storage: {said(error)}", expected) from error
        self._root = str(root).rstrip("/")
        self._is_local = isinstance(self._files, LocalFileSystem)
        if self._is_local:
            with self._reached():
                Path(self._root).mkdir(parents=True, exist_ok=True, mode=0o700)

    def check(self) -> None:
        """Look at the folder, to see whether the storage answers."""
        with self._reached():
            with suppress(FileNotFoundError):  # nothing was put into an object store yet
                self._files.info(self._root)  # its `exists` takes a store that is away for one without the file
            if self._is_local and not os.access(self._root, os.W_OK):
                raise PermissionError(f"{self._root} is missing or cannot be written")

    def size(self, *name: str) -> int | None:
        """In bytes; None where there is no such file."""
        with self._reached():
            try:
                return int(self._files.info(self._path(name))["size"])
            except FileNotFoundError:
                return None

    def sizes(self, *folder: str) -> dict[tuple[str, ...], int]:
        """Every file below a folder: the parts of its name from there, and its bytes."""
        root = self._path(folder)
        # fsspec takes a folder of this machine that cannot be listed for an empty one, unless it is asked not to.
        strictly = {"on_error": "raise"} if self._is_local else {}
        with self._reached():
            self._files.invalidate_cache(root)  # another server may have written there
            try:
                found: dict[str, Any] = self._files.find(root, detail=True, **strictly)
            except FileNotFoundError:
                return {}
        below = {path.partition(f"{root}/")[2]: int(info["size"]) for path, info in found.items()}
        return {tuple(name.split("/")): size for name, size in below.items() if name and "/." not in f"/{name}"}

    def names(self, folder: str) -> set[str]:
        """What a folder holds, files and folders."""
        path = self._path((folder,))
        with self._reached():
            self._files.invalidate_cache(path)
            try:
                found = self._files.ls(path, detail=False)
            except FileNotFoundError:
                return set()
        return {name for one in found if _PART.fullmatch(name := str(one).rstrip("/").rpartition("/")[2])}

    def delete(self, *name: str) -> None:
        """A file, or a folder with all it holds; nothing where it is gone already."""
        with self._reached(), suppress(FileNotFoundError):
            self._files.rm(self._path(name), recursive=True)

    def delete_file(self, *name: str) -> None:
        """As ``delete``, in one request where files are objects."""
        with self._reached(), suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def read(self, name: tuple[str, ...], start: int, end: int) -> bytes | None:
        """The bytes from ``start`` to before ``end``, or fewer where the file ends earlier; None: there is no file."""
        with self._reached():
            try:
                return bytes(self._files.cat_file(self._path(name), start=start, end=end))
            except FileNotFoundError:
                return None

    def blocks(self, *name: str) -> Iterator[bytes]:
        """The file, bit by bit."""
        with self._reached(), self._files.open(self._path(name), "rb") as file:
            while block := file.read(_BLOCK):
                yield block

    def write(self, name: tuple[str, ...], data: bytes) -> None:
        """Store ``data``, which is small, under a name; nobody sees half of it."""
        self.put(io.BytesIO(data), *name)

    def put(self, file: IO[bytes], *name: str) -> None:
        """Store all of ``file``, which fits into memory, under a name; nobody sees half of it.

        Not bit by bit where files are objects: fsspec closes one whose writing fails, and half of it is there.
        """
        path = self._path(name)
        with self._reached():
            if self._is_local:
                self._put_here(file, Path(path), len(name) - 1)
            else:
                self._files.pipe_file(path, file.read())

    def _path(self, name: tuple[str, ...]) -> str:
        for part in name:
            if not _PART.fullmatch(part):
                raise UsageError(f"not a name that can be stored: {part!r}")
        return "/".join((self._root, *name))

    @staticmethod
    def _put_here(file: IO[bytes], path: Path, folders: int) -> None:
        is_new = not path.parent.exists()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".draft-")
        try:
            with os.fdopen(descriptor, "wb") as target:
                shutil.copyfileobj(file, target, _BLOCK)
                target.flush()
                os.fsync(target.fileno())
            os.replace(draft, path)
            # Its name, too, and those of new folders: lost with the power, a job that was accepted would have no code.
            sync(path.parent, parents=folders if is_new else 0)
        except BaseException:
            with suppress(OSError):
                os.unlink(draft)
            raise

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not isinstance(error, OSError) and not _is_foreign(error):
                raise
            raise UnreachableError(f"the storage does not do what it should: {said(error)}", _HINT) from error


def _is_foreign(error: Exception) -> bool:
    """Whether it is of a library that an fsspec file system is made of; those of object stores are no ``OSError``."""
    return type(error).__module__.partition(".")[0] not in ("builtins", "epochal")
