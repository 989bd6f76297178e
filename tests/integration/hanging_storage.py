"""A server process whose storage hangs as long as a file is there: ``python hanging_storage.py FOLDER``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from epochal.files import write_atomically
from epochal.server.serving import serve
from epochal.server.settings import ServerSettings


class HangingFiles(LocalFileSystem):
    """A local file system behind an object store's door, each of whose calls blocks its thread while it hangs."""

    protocol = "hanging"
    flag = Path()

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
