"""Shipping code: what is packed, what is refused, and what comes out again."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest

from epochal.engine import code
from epochal.engine.code import pack, unpack
from epochal.errors import CodeError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name, text in {
        "job.yaml": "version: 1\n",
        "nets/__init__.py": "",
        "nets/small.py": "SIZE = 3\n",
        "nets/.gitignore": "*.tmp\n/scratch/\n",
        "nets/draft.tmp": "x",
        "nets/scratch/a.py": "x",
        "other/scratch/a.py": "x",
        ".gitignore": "*.log\ndata/\n!keep.log\n",
        "train.log": "x",
        "keep.log": "x",
        "data/big.bin": "x",
        ".git/config": "x",
        "__pycache__/a.pyc": "x",
        "myenv/pyvenv.cfg": "home = /usr",
        "myenv/lib/site.py": "x",
        ".env": "PASSWORD=1",
        "keys/id_rsa": "secret",
        "excluded/a.py": "x",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_ignore_rules_and_secrets(project: Path, tmp_path: Path) -> None:
    package = pack(project, tmp_path / "out", exclude=["excluded/"])
    assert package.files == (
        ".gitignore",
        "job.yaml",
        "keep.log",
        "nets/.gitignore",
        "nets/__init__.py",
        "nets/small.py",
        "other/scratch/a.py",
    )
    assert package.skipped == (".env", "keys/id_rsa")
    assert package.path == tmp_path / "out" / f"{package.digest}.zip"


def test_the_digest_is_of_the_content(project: Path, tmp_path: Path) -> None:
    first = pack(project, tmp_path / "one")
    os.utime(project / "job.yaml", (1, 1))
    (project / "job.yaml").chmod(0o600)
    second = pack(project, tmp_path / "two")
    assert first.digest == second.digest
    assert first.path.read_bytes() == second.path.read_bytes()
    (project / "nets/small.py").write_text("SIZE = 4\n")
    assert pack(project, tmp_path / "two").digest != first.digest


def test_round_trip_is_unpacked_once(project: Path, tmp_path: Path) -> None:
    package = pack(project, tmp_path / "out")
    folder = unpack(package.path, package.digest, tmp_path / "cache")
    assert (folder / "nets/small.py").read_text() == "SIZE = 3\n"
    package.path.unlink()
    assert unpack(package.path, package.digest, tmp_path / "cache") == folder
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [package.digest]


def test_too_large_names_the_largest_files(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "MAX_BYTES", 1000)
    (project / "weights.bin").write_bytes(bytes(4000))
    (project / "more.bin").write_bytes(bytes(2000))
    with pytest.raises(CodeError, match=r"largest files: weights.bin \(3.91 KiB\), more.bin \(1.95 KiB\)"):
        pack(project, tmp_path / "out")


def test_links(project: Path, tmp_path: Path) -> None:
    (project / "alias.py").symlink_to("nets/small.py")
    package = pack(project, tmp_path / "out")
    folder = unpack(package.path, package.digest, tmp_path / "cache")
    assert (folder / "alias.py").read_text() == "SIZE = 3\n"
    assert not (folder / "alias.py").is_symlink()
    (project / "passwords").symlink_to("/etc/passwd")
    with pytest.raises(CodeError, match="leads out of"):
        pack(project, tmp_path / "out")


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CodeError, match="no folder"):
        pack(tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.parametrize("name", ["/etc/evil", "../evil", "a/../../evil", "a\\..\\evil", "c:/evil", "folder/"])
def test_entries_that_would_leave_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(CodeError, match="refused"):
        unpack(path, "0" * 64, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_links_in_a_package_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.zip"
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(CodeError, match="refused"):
        unpack(path, "0" * 64, tmp_path / "cache")


def test_damage_is_noticed(project: Path, tmp_path: Path) -> None:
    package = pack(project, tmp_path / "out")
    with pytest.raises(CodeError, match="digest"):
        unpack(package.path, "0" * 64, tmp_path / "cache")
    package.path.write_bytes(package.path.read_bytes()[:50])
    with pytest.raises(CodeError, match="cannot be read"):
        unpack(package.path, package.digest, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
