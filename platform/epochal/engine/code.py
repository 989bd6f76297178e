"""The user's own code: packed by content, checked entry by entry, unpacked once a node."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from pathspec import GitIgnoreSpec

from epochal.engine.hidden import check_modules
from epochal.errors import CodeError, some
from epochal.files import sync
from epochal.units import Bytes

if TYPE_CHECKING:
    from epochal.spec.load import LoadedSpec

MAX_BYTES = 50 * 1024 * 1024
MAX_FILES = 20_000
MAX_NAME = 800
"""Bytes of a file's name with its folders: a worker's system takes 4096 with all above them, or 1024 (macOS)."""

_SHOWN = 120
_DRIVE = re.compile("[A-Za-z]:")
_LEAVE_OUT = "add data and weights to code.exclude or .gitignore; they belong in a dataset or in the storage root"
_RENAME = "rename them, or leave them out with code.exclude"
_MAX_DIRECTORY = 8 * 2**20
# Of the zip format: an entry of the directory without its name; the record at the end, with the longest comment.
_ENTRY_BYTES = 46
_LONGEST_END = 2**16 + 22
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UNREADABLE = (
    zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error, struct.error,
)  # fmt: skip
"""What ``zipfile`` raises of a damaged or odd archive."""
_ALWAYS_IGNORED = (
    ".git/", ".hg/", ".svn/", "__pycache__/", "*.py[co]", ".venv/", "venv/", ".tox/", ".nox/", "*.egg-info/",
    ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".ipynb_checkpoints/", "node_modules/", "mlruns/", ".DS_Store",
)  # fmt: skip
_SECRETS = GitIgnoreSpec.from_lines([
    ".env", ".env.*", "!.env.example", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.pem", "*.p12", "*.key",
    ".netrc", ".pypirc", ".aws/", ".ssh/", ".kube/", "credentials.json", "service-account*.json",
])  # fmt: skip
# The first that zip can say. When a file was changed is not in its digest, and not in the package.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Contents:
    """What of a folder is shipped: files by their names in the package, ``size`` in bytes together.

    ``warnings`` are for the user: what was left out because it looks like a secret, what hides other modules.
    """

    files: Mapping[str, Path]
    size: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Package:
    """A folder's code as one zip file. ``digest`` (SHA-256, hex) is of the content, so equal folders share one.

    ``size`` is in bytes, before compression; ``warnings`` as in ``Contents``.
    """

    digest: str
    path: Path
    files: tuple[str, ...]
    size: int
    warnings: tuple[str, ...] = ()


def contents(folder: Path, exclude: Iterable[str] = (), has_loaders: bool = False) -> Contents:
    """What of ``folder`` is shipped; ``has_loaders``: workers start processes that read the data.

    Left out is what ``.gitignore`` files say, version control, caches, virtual environments, what looks like a secret,
    and ``exclude`` (patterns as in .gitignore).

    Raises:
        CodeError: there is no such folder, ``exclude`` has what is no pattern, it has more than 50 MiB to ship, a file
            of it cannot be read or has a name that no package may have, a link in it leads out of it, or it has a
            module by the name of one that workers, or those processes, import.
    """
    if not folder.is_dir():
        raise CodeError(f"there is no folder {folder}", "code.dir is relative to the job spec")
    root = folder.resolve()
    files: dict[str, Path] = {}
    skipped: list[str] = []
    try:
        for path in _walk(root, root, [("", _excluded(exclude)), ("", GitIgnoreSpec.from_lines(_ALWAYS_IGNORED))]):
            name = path.relative_to(root).as_posix()
            if _SECRETS.match_file(name):
                skipped.append(name)
            else:
                files[name] = _inside(path, root)
        size = _check_size(files)
    except OSError as error:
        raise _unreadable(error) from error
    if refused := [f"{_shown(name)} {why}" for name in sorted(files) if (why := refused_name(name))]:
        raise CodeError(f"the code in {folder} has files that cannot be shipped: {some(refused, 5)}", _RENAME)
    withheld = f"not shipped, since they look like secrets: {', '.join(map(_shown, sorted(skipped)))}"
    return Contents(files, size, (*([withheld] if skipped else []), *check_modules(files, has_loaders)))


def pack(folder: Path, into: Path, exclude: Iterable[str] = (), has_loaders: bool = False) -> Package:
    """Pack what ``contents`` finds as ``<into>/<digest>.zip``, where that does not exist already.

    Raises:
        CodeError: as ``contents``; or a file changes while it is packed.
    """
    found = contents(folder, exclude, has_loaders)
    try:
        digests = _digests(found.files)
    except OSError as error:
        raise _unreadable(error) from error
    digest = _combined(digests)
    target = into / f"{digest}.zip"
    if not target.exists():
        _write(found.files, digests, target)
    return Package(digest, target, tuple(sorted(found.files)), found.size, found.warnings)


def pack_of(loaded: LoadedSpec, into: Path) -> Package | None:
    """The code that a spec ships, packed; None where it ships none.

    Raises:
        CodeError: as ``pack``.
    """
    code = loaded.spec.code
    return pack(loaded.code_folder, into, code.exclude, loaded.spec.data.loader_workers > 0) if code else None


def unpack(path: Path, digest: str, cache: Path) -> Path:
    """The folder with the package's files, below ``cache``; unpacked where it is not there yet.

    Raises:
        CodeError: the package is damaged or not that of ``digest``, or an entry would leave the folder.
    """
    target = cache / digest
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{digest[:12]}-", dir=cache))
    try:
        _extract(path, draft)
        files = {file.relative_to(draft).as_posix(): file for file in draft.rglob("*") if file.is_file()}
        found = _combined(_digests(files))
        if found != digest:
            raise CodeError(f"the code package {path} is damaged: its content has digest {found}, not {digest}")
        _move(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def verify(package: IO[bytes], digest: str) -> None:
    """Check a package that someone sent, without writing or keeping any of its content.

    Raises:
        CodeError: it is damaged, not that of ``digest``, too large, or has an entry that is refused.
    """
    try:
        _check_directory(package)
        with zipfile.ZipFile(package) as archive:
            found = _combined({entry.filename: _content_digest(archive, entry) for entry in _checked(archive, "sent")})
    except _UNREADABLE as error:
        raise CodeError(f"the code package sent cannot be read: {error}") from error
    if found != digest:
        raise CodeError(f"the code package sent is not the one named: its content has digest {found}, not {digest}")


def refused_name(name: str) -> str:
    """Why no package may have a file of that name, which is relative and has slashes; empty where it may.

    What every worker's system takes is shipped as it is, colons, dots and spaces at an end included.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name or name == ".":
        return "does not stay in its folder"
    if "\\" in name or _DRIVE.match(name):
        return "leads elsewhere on Windows (a backslash, or a letter and a colon at its beginning)"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "has a control character in its name"
    try:
        if len(name.encode()) > MAX_NAME:
            return f"has a name of more than {MAX_NAME} bytes"
    except UnicodeEncodeError:
        return "has a name that is no text (UTF-8)"
    return ""


def _shown(name: str) -> str:
    """A name with what a terminal cannot show escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    text = text if text.isprintable() else text.encode("unicode_escape").decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _unreadable(error: OSError) -> CodeError:
    where = _shown(os.fspath(error.filename or "a file"))
    return CodeError(
        f"the code cannot be packed: {where}: {error.strerror}", "let it be read, or add it to code.exclude"
    )


def _excluded(patterns: Iterable[str]) -> GitIgnoreSpec:
    patterns = list(patterns)
    if wrong := [pattern for pattern in patterns if not _is_pattern(pattern)]:
        raise CodeError(f"code.exclude: {some(list(map(repr, wrong)))} is no pattern", "write them as in .gitignore")
    return GitIgnoreSpec.from_lines(patterns)


def _is_pattern(line: str) -> bool:
    try:
        GitIgnoreSpec.from_lines([line])
    except (ValueError, re.error):
        return False
    return True


def _walk(folder: Path, root: Path, rules: list[tuple[str, GitIgnoreSpec]]) -> Iterator[Path]:
    """Files below ``folder``. A rule is (folder it holds below, relative to the root; patterns)."""
    ignore = folder / ".gitignore"
    if ignore.is_file():
        below = folder.relative_to(root).as_posix()
        # As git does: a byte order mark is no part of the first line, and a line that is no pattern is passed over.
        lines = filter(_is_pattern, ignore.read_text(encoding="utf-8-sig", errors="replace").splitlines())
        rules = [*rules, ("" if below == "." else f"{below}/", GitIgnoreSpec.from_lines(lines))]
    for path in sorted(folder.iterdir()):
        is_folder = path.is_dir() and not path.is_symlink()
        name = path.relative_to(root).as_posix() + ("/" if is_folder else "")
        if any(name.startswith(below) and spec.match_file(name[len(below) :]) for below, spec in rules):
            continue
        # A virtual environment may have any name.
        if is_folder and not (path / "pyvenv.cfg").exists():
            yield from _walk(path, root, rules)
        elif not is_folder and _is_shippable(path):
            yield path


def _is_shippable(path: Path) -> bool:
    """A file, or a link (checked later); sockets and pipes are not."""
    return path.is_symlink() or stat.S_ISREG(path.lstat().st_mode)


def _inside(path: Path, root: Path) -> Path:
    real = Path(os.path.realpath(path))  # `Path.resolve` raises where a link leads to itself
    if not real.is_relative_to(root):
        raise CodeError(
            f"{path} is a link that leads out of {root}", "copy what it points to, or add it to code.exclude"
        )
    if not real.is_file():
        raise CodeError(f"{path} is a link to something that is no file", "link to files, or add it to code.exclude")
    return real


def _check_size(files: Mapping[str, Path]) -> int:
    sizes = {name: path.stat().st_size for name, path in files.items()}
    total = sum(sizes.values())
    if len(files) > MAX_FILES:
        raise CodeError(f"the code has {len(files):,} files, more than {MAX_FILES:,}", _LEAVE_OUT)
    if sum(_ENTRY_BYTES + len(os.fsencode(name)) for name in files) > _MAX_DIRECTORY:
        raise CodeError("the names of the code's files are too long, all of them together", _LEAVE_OUT)
    if total > MAX_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:5]
        listed = ", ".join(f"{name} ({Bytes(sizes[name]).human()})" for name in largest)
        raise CodeError(
            f"the code has {Bytes(total).human()}, more than {Bytes(MAX_BYTES).human()}; the largest files: {listed}",
            _LEAVE_OUT,
        )
    return total


def _digests(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def _combined(digests: dict[str, str]) -> str:
    """The digest of a package from those of its files, by name."""
    total = hashlib.sha256()
    for name in sorted(digests):
        total.update(f"{digests[name]} {name}\n".encode())
    return total.hexdigest()


def _content_digest(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str:
    content = hashlib.sha256()
    with archive.open(entry) as file:  # gives at most the size that the entry says, and checks it
        while block := file.read(2**20):
            content.update(block)
    return content.hexdigest()


def _write(files: Mapping[str, Path], digests: Mapping[str, str], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Of this call alone: two threads may pack the same folder at once.
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                content = files[name].read_bytes()
                if hashlib.sha256(content).hexdigest() != digests[name]:
                    hint = "pack it once nothing writes to it, or add it to code.exclude"
                    raise CodeError(f"{name} changed while the code was packed", hint)
                archive.writestr(entry, content)
        sync(draft)  # with the power, an empty file would be left by a name that is never packed again
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _extract(path: Path, into: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in _checked(archive, str(path)):
                archive.extract(entry, into)
    except _UNREADABLE as error:
        raise CodeError(f"the code package {path} cannot be read: {error}") from error


def _check_directory(package: IO[bytes]) -> None:
    """Refuse a package with too many entries before ``zipfile`` makes an object of each."""
    size = package.seek(0, os.SEEK_END)
    package.seek(max(0, size - _LONGEST_END))
    end = package.read()
    at = end.rfind(b"PK\x05\x06")
    # Where the locator of zip64 comes before it, `zipfile` believes that one, whatever the size here is.
    if at < 0 or len(end) < at + 22 or end[max(0, at - 20) : at].startswith(b"PK\x06\x07"):
        raise CodeError("the code package sent is not a zip file, or one of a kind that is refused (zip64)")
    if int.from_bytes(end[at + 12 : at + 16], "little") > _MAX_DIRECTORY:
        raise CodeError(f"the code package sent has more entries than the {MAX_FILES:,} that are allowed")
    package.seek(0)


def _checked(archive: zipfile.ZipFile, shown: str) -> list[zipfile.ZipInfo]:
    """The entries, once all of them have been looked at."""
    entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise CodeError(f"the code package {shown} unpacks to more than {Bytes(MAX_BYTES).human()}")
    if len(entries) > MAX_FILES or len({entry.filename for entry in entries}) < len(entries):
        raise CodeError(f"the code package {shown} has more than {MAX_FILES:,} entries, or several of one name")
    for entry in entries:
        _check_entry(entry, shown)
    return entries


def _check_entry(entry: zipfile.ZipInfo, shown: str) -> None:
    mode = entry.external_attr >> 16
    plain = entry.filename and not entry.is_dir() and (not stat.S_IFMT(mode) or stat.S_ISREG(mode))
    if not plain or entry.compress_type not in _COMPRESSIONS or entry.flag_bits & 1:  # 1: encrypted
        raise CodeError(f"the code package {shown} has an entry that is refused: {entry.filename!r}")
    if why := refused_name(entry.filename):
        raise CodeError(f"the code package {shown} has an entry that is refused: {entry.filename!r} {why}")


def _move(draft: Path, target: Path) -> None:
    try:
        draft.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another worker of this node was first, with the same content
            raise
