"""Shipped code by digest: checked before it is kept, never changed afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from epochal.engine.code import verify
from epochal.errors import NotFoundError
from epochal.server.storage import Storage

MAX_UPLOAD = 60 * 2**20
"""Bytes of a package as it is sent; what it unpacks to has a limit of its own."""
_FOLDER = "code"


class CodeStore:
    """The packages of all jobs. ``digest`` is that of ``engine.code.pack``."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def size(self, digest: str) -> int:
        """The package's size in bytes.

        Raises:
            NotFoundError: there is no such package.
        """
        size = self._storage.size(_FOLDER, f"{digest}.zip")
        if size is None:
            raise NotFoundError("code package", digest, hint=f"send it first: PUT /api/v1/code/{digest}")
        return size

    def holds(self, digest: str) -> bool:
        return self._storage.size(_FOLDER, f"{digest}.zip") is not None

    def digests(self) -> set[str]:
        """Of all packages."""
        return {name.removesuffix(".zip") for name in self._storage.names(_FOLDER) if name.endswith(".zip")}

    def delete(self, digest: str) -> None:
        self._storage.delete(_FOLDER, f"{digest}.zip")

    def read(self, digest: str) -> Iterator[bytes]:
        return self._storage.blocks(_FOLDER, f"{digest}.zip")

    def keep(self, digest: str, package: IO[bytes]) -> None:
        """
        Raises:
            CodeError: not a package, not that of ``digest``, or with an entry that is refused.
        """
        verify(package, digest)
        package.seek(0)
        self._storage.put(package, _FOLDER, f"{digest}.zip")
