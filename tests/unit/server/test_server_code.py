"""Packages that clients send: what is kept, and what is refused before any of it is."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.engine import code
from epochal.engine.code import Package, pack, verify
from epochal.errors import CodeError, NotFoundError
from epochal.server.code_store import CodeStore
from epochal.server.storage import Storage


@pytest.fixture
def package(tmp_path: Path) -> Package:
    folder = tmp_path / "project"
    (folder / "nets").mkdir(parents=True)
    (folder / "nets" / "small.py").write_text("SIZE = 3\n")
    (folder / "train.py").write_text("import nets.small\n")
    return pack(folder, tmp_path / "packed")


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return made


def digest_of(**files: bytes) -> str:
    lines = [f"{hashlib.sha256(files[name]).hexdigest()} {name}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_package_is_kept_as_it_was_sent(package: Package, tmp_path: Path) -> None:
    store = CodeStore(Storage(str(tmp_path / "kept")))
    assert not store.holds(package.digest)
    with package.path.open("rb") as file:
        store.keep(package.digest, file)
    assert store.holds(package.digest)
    assert b"".join(store.read(package.digest)) == package.path.read_bytes()
    assert store.size(package.digest) == package.path.stat().st_size


def test_a_package_that_is_not_there_says_how_to_send_it(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="PUT /api/v1/code"):
        CodeStore(Storage(str(tmp_path / "kept"))).size("0" * 64)


def test_a_package_of_another_digest_is_refused_and_not_kept(package: Package, tmp_path: Path) -> None:
    store = CodeStore(Storage(str(tmp_path / "kept")))
    with package.path.open("rb") as file, pytest.raises(CodeError, match="not the one named"):
        store.keep("0" * 64, file)
    assert not store.holds("0" * 64)


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.parametrize(
    "name", ["../a", "/a", "a/../../b", "a\\b", "C:/a", "folder/", "./a", ".", "a//b", link()], ids=str
)
def test_an_entry_that_leads_elsewhere_is_refused(name: str | zipfile.ZipInfo) -> None:
    with pytest.raises(CodeError, match="entry that is refused"):
        verify(zipped((name, b"x")), "0" * 64)


def test_a_zip_bomb_is_refused_by_what_it_says_it_unpacks_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "MAX_BYTES", 100_000)
    bomb = zipped(("a", bytes(200_000)))
    assert len(bomb.getvalue()) < 1_000
    with pytest.raises(CodeError, match="unpacks to more"):
        verify(bomb, digest_of(a=bytes(200_000)))


def test_a_zip_bomb_that_lies_about_its_size_is_refused() -> None:
    bomb = zipped(("a", bytes(10_000_000)))
    raw = bytearray(bomb.getvalue())
    told = (10_000_000).to_bytes(4, "little")
    while (at := raw.find(told)) >= 0:
        raw[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises(CodeError):
        verify(io.BytesIO(bytes(raw)), digest_of(a=bytes(10)))


def test_too_many_entries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "MAX_FILES", 10)
    many = zipped(*((f"a{number}", b"") for number in range(11)))
    with pytest.raises(CodeError, match="more than 10 entries"):
        verify(many, "0" * 64)


def test_a_directory_of_millions_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_MAX_DIRECTORY", 500)
    with pytest.raises(CodeError, match="more entries"):
        verify(zipped(*((f"a{number}", b"") for number in range(11))), "0" * 64)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused() -> None:
    with pytest.raises(CodeError, match="several of one name"):
        verify(zipped(("a", b"1"), ("a", b"2")), digest_of(a=b"2"))


def test_an_odd_compression_is_refused() -> None:
    with pytest.raises(CodeError, match="entry that is refused"):
        verify(zipped(("a", b"x"), compression=zipfile.ZIP_LZMA), digest_of(a=b"x"))


@given(st.binary(max_size=200))
def test_anything_that_is_no_package_is_refused(content: bytes) -> None:
    with pytest.raises(CodeError):
        verify(io.BytesIO(content), "0" * 64)


@given(at=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.integers(0, 400))
def test_a_damaged_package_is_refused_or_the_same(at: int, byte: int, cut: int) -> None:
    files = {"a": b"one" * 50, "b": b"two"}
    raw = bytearray(zipped(*files.items()).getvalue())
    raw[at % len(raw)] = byte
    damaged = bytes(raw[: len(raw) - cut])
    try:
        verify(io.BytesIO(damaged), digest_of(**files))
    except CodeError:
        return
    with zipfile.ZipFile(io.BytesIO(damaged)) as package:
        assert {name: package.read(name) for name in package.namelist()} == files
