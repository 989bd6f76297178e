"""Shipping code: what is packed, what is refused, and what comes out again."""

from __future__ import annotations

import errno
import io
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from epochal.engine import code
from epochal.engine.code import pack, unpack, verify
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
    assert package.warnings == ("not shipped, since they look like secrets: .env, keys/id_rsa",)
    assert package.path == tmp_path / "out" / f"{package.digest}.zip"


def test_lines_of_ignore_files_that_are_no_patterns_are_passed_over(project: Path, tmp_path: Path) -> None:
    """As git does; they ended the command in a traceback. And a byte order mark is no part of the first line."""
    lines = "\ufeffother/\n!\n[z-a]\n*.log\\\n*.log\n"
    (project / ".gitignore").write_text(lines, encoding="utf-8")
    files = pack(project, tmp_path / "out", ["excluded/"]).files
    assert "nets/small.py" in files
    assert not [name for name in files if name.startswith("other/") or name.endswith(".log")]


@pytest.mark.parametrize("pattern", ["!", "[z-a]", "data\\"])
def test_what_is_no_pattern_to_leave_out_is_told(pattern: str, project: Path, tmp_path: Path) -> None:
    with pytest.raises(CodeError, match=r"code\.exclude: .* is no pattern") as caught:
        pack(project, tmp_path / "out", ["*.csv", pattern])
    assert repr(pattern) in str(caught.value)


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
    (project / "itself").symlink_to("itself")
    with pytest.raises(CodeError, match="itself is a link to something that is no file"):
        pack(project, tmp_path / "out")
    (project / "itself").unlink()
    (project / "passwords").symlink_to("/etc/passwd")
    with pytest.raises(CodeError, match="leads out of"):
        pack(project, tmp_path / "out")


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CodeError, match="no folder"):
        pack(tmp_path / "nowhere", tmp_path / "out")


LONG = "/".join(["d" * 200] * 4)
SHIPPED = [
    "run_12:30:05.log", "1:30.log", "ab:c/d:e.txt", "logs/2024-01-01T12:30.log", "dot.", "space ", "folder. /file", " ",
    "caf\u00e9.py", "\u540d\u524d.txt", "a%20b#c?.txt", "it's \"quoted\"", "con", "x" * 250 + ".txt", LONG[:-4],
    "...", "~", "-rf", ";", "aaa" + "/b" * 90, "*", "$HOME", "\u202egnp.exe",
]  # fmt: skip
REFUSED = {
    "a\\b": "backslash", "folder/c:\\d": "backslash", "\\": "backslash", "c:evil": "a letter and a colon",
    "Z:/a": "a letter and a colon", "new\nline": "control", "tab\there": "control", "bell\x07": "control",
    "escape\x1b[2J": "control", "delete\x7f": "control", "caf\udce9.png": "no text", "\udcff/\udcfe": "no text",
    LONG: "more than 800 bytes", "/".join(["\u540d" * 80] * 4): "more than 800 bytes",
}  # fmt: skip


def written(folder: Path, name: str) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(os.fsencode(name))
    return folder


@pytest.mark.parametrize("name", SHIPPED, ids=lambda name: ascii(name)[:30])
def test_a_name_that_is_packed_is_unpacked(name: str, tmp_path: Path) -> None:
    package = pack(written(tmp_path / "source", name), tmp_path / "out")
    with package.path.open("rb") as sent:
        verify(sent, package.digest)
    folder = unpack(package.path, package.digest, tmp_path / "cache")
    assert (folder / name).read_bytes() == os.fsencode(name)


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: ascii(name)[:30])
def test_a_name_that_would_not_be_unpacked_is_not_packed(name: str, tmp_path: Path) -> None:
    with pytest.raises(CodeError, match=REFUSED[name]) as caught:
        pack(written(tmp_path / "source", name), tmp_path / "out")
    assert caught.value.message.isprintable()
    assert "code.exclude" in caught.value.hint
    assert not (tmp_path / "out").exists()
    pack(tmp_path / "source", tmp_path / "out", exclude=["*"])
    if "no text" not in REFUSED[name]:  # which no zip file holds
        sent = io.BytesIO()
        with zipfile.ZipFile(sent, "w") as archive:
            archive.writestr(name, b"x")
        with pytest.raises(CodeError, match=REFUSED[name]):
            verify(sent, "0" * 64)


def test_names_that_differ_by_case_are_two(tmp_path: Path) -> None:
    source = written(written(tmp_path / "source", "Readme.md"), "README.md")
    package = pack(source, tmp_path / "out")
    folder = unpack(package.path, package.digest, tmp_path / "cache")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "Readme.md"]


def test_every_name_that_is_refused_is_told_at_once(tmp_path: Path) -> None:
    source = written(written(tmp_path / "source", "a\\b"), "c\nd")
    with pytest.raises(CodeError, match=r"a\\b leads elsewhere.*, c\\nd has a control character"):
        pack(source, tmp_path / "out")


def test_names_too_long_all_together_are_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "_MAX_DIRECTORY", 300)
    with pytest.raises(CodeError, match="names of the code's files are too long"):
        pack(project, tmp_path / "out")


def test_a_file_that_changes_meanwhile_is_named(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes

    def grows(path: Path) -> bytes:
        content = read(path)
        if path.name == "keep.log":
            path.write_bytes(content + b"one more line\n")
        return content

    monkeypatch.setattr(Path, "read_bytes", grows)
    with pytest.raises(CodeError, match=r"keep\.log changed"):
        pack(project, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_two_threads_may_pack_the_same_folder_at_once(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, others = zipfile.ZipFile.writestr, list[str]()

    def meanwhile(*arguments: Any) -> None:
        if not others:
            others.append("")
            others.append(pack(project, tmp_path / "out").digest)
        write(*arguments)

    monkeypatch.setattr(zipfile.ZipFile, "writestr", meanwhile)
    package = pack(project, tmp_path / "out")
    assert others[1] == package.digest
    assert (unpack(package.path, package.digest, tmp_path / "cache") / "nets/small.py").exists()


def test_a_file_that_cannot_be_read_is_named(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)  # root may read everything
    with pytest.raises(CodeError, match=r"/project/.*: Permission denied"):
        pack(project, tmp_path / "out")


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
