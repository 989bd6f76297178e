"""A server process whose storage hangs as long as a file is there: ``python hanging_storage.py FOLDER``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from epochal.files import write_atomically
from epochal.server.serving import serve
from epochal.server.settings import ServerSettings


class HangingFiles(MemoryFileSystem):
    """An object store, each of whose calls blocks its thread while it hangs.

    No folder behind another door: what is a ``LocalFileSystem`` the server writes to itself, past these calls.
    """

    protocol = "hanging"
    flag = Path()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("hanging://"))

    def __getattribute__(self, name: str) -> Any:
        if name in ("info", "find", "cat_file", "pipe_file", "open", "rm_file"):
            flag: Path = type(self).flag
            while flag.exists():
                time.sleep(0.05)
        return super().__getattribute__(name)


def main(folder: Path) -> None:
    HangingFiles.flag = folder / "hangs"
    fsspec.register_implementation("hanging", HangingFiles)
    settings = ServerSettings(
        ledger_url=f"sqlite:///{folder / 'ledger.db'}",
        storage_url=f"hanging://{folder / 'storage'}",
        token_file=folder / "token",
        port=0,
    )
    serve(settings, lambda url: write_atomically(folder / "url", url))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
