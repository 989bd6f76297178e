"""Tar files of records, as webdataset lays them out: files in a row whose names are the same up to their first dot."""

from __future__ import annotations

import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from epochal.errors import EpochalError
from epochal.redaction import said

_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True)
class Record:
    """Where the files of a record are, as offset and size in bytes, by what their names have after the first dot:
    ``jpg``, ``cls``, ``seg.png``."""

    key: str
    files: dict[str, tuple[int, int]]


class TarShard:
    """An open shard; ``name`` is a path, or an address that fsspec knows.

    Only the headers of its files are read when it is opened, so that the records can be read in any order. One that is
    not on this machine, or compressed, is copied to a temporary file first, which goes when it is closed.

    ``damage`` says why there are no more ``records``, where it ends too early.
    """

    def __init__(self, name: str) -> None:
        """
        Raises:
            EpochalError: it cannot be opened, or is no tar file.
        """
        self.name = name
        self.damage = ""
        self.records: list[Record] = []
        try:
            self._file = _copied(name) if "://" in name or name.endswith(_COMPRESSED) else Path(name).open("rb")  # noqa: SIM115
        except ImportError as error:
            hint = f"pip install fsspec, and what it needs for {name.partition(':')[0]}"
            raise EpochalError(f"{name} cannot be opened: {said(error)}", hint) from error
        except Exception as error:  # those of the service that holds it
            raise EpochalError(f"{name} cannot be opened: {said(error)}", "the workers must reach it") from error
        try:
            self._index()
        except (tarfile.TarError, OSError, EOFError) as error:
            if not self.records:
                self.close()
                raise EpochalError(f"{name} cannot be read as a tar file: {said(error)}", "is it whole?") from error
            self.damage = f"{name} ends after its record {self.records[-1].key}: {said(error)}"

    def _index(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        with tarfile.open(fileobj=self._file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # of many files they would fill the memory
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                stem, _, suffix = name.partition(".")
                if not member.isfile() or not stem:  # hidden files: macOS leaves some
                    continue
                if member.offset_data + member.size > size:
                    raise EOFError(f"{member.name} is cut off")
                key = f"{folder}/{stem}" if folder else stem
                if not self.records or self.records[-1].key != key:
                    self.records.append(Record(key, {}))
                self.records[-1].files[suffix.lower()] = (member.offset_data, member.size)

    def read(self, record: Record, suffix: str) -> bytes:
        offset, size = record.files[suffix]
        return os.pread(self._file.fileno(), size, offset)

    def close(self) -> None:
        self._file.close()


def _copied(name: str) -> IO[bytes]:
    import fsspec

    copy: Any = TemporaryFile()  # noqa: SIM115  # closed with the shard
    with fsspec.open(name, "rb", compression="infer") as content:
        shutil.copyfileobj(content, copy, 1 << 20)
    copy.seek(0)
    found: IO[bytes] = copy
    return found
