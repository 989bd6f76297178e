"""A home, a disk or a standard output that cannot be written: one message, its remedy, and the documented exit code."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from epochal.cli.main import main

JOB = "{version: 1, name: a, model: {name: mlp}, data: {name: wine}, train: {epochs: 1}}"
HINT = "hint: set EPOCHAL_HOME to a folder that you can write\n"

HOMES = {
    "below proc": "/proc/x",
    "below sys": "/sys/x",
    "a file": "/etc/passwd",
    "below a file": "/etc/passwd/x/y",
    "a device": "/dev/null",
    "another process's": "/proc/1/x",
    "the pid's own": f"/proc/{os.getpid()}/task",
    "too long a name": f"/tmp/{'x' * 256}",
    "too long a path": "/tmp" + f"/{'x' * 250}" * 20,
    "a loop": "LOOP/x",
}


@pytest.fixture
def lost_home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "loop").symlink_to("loop")
    home = str(request.param).replace("LOOP", str(tmp_path / "loop"))
    monkeypatch.setenv("EPOCHAL_HOME", home)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(JOB)
    return home


@pytest.mark.parametrize("lost_home", HOMES.values(), ids=HOMES, indirect=True)
@pytest.mark.parametrize("words", [["db", "upgrade"], ["run", "job.yaml"], ["ui"], ["up"]], ids=" ".join)
def test_a_home_that_cannot_be_written(words: list[str], lost_home: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 5
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert lost_home in printed.err.splitlines()[0]
    assert printed.err.endswith(HINT)
    assert main([*words, "-o", "json"]) in (2, 5)
    assert set(json.loads(capsys.readouterr().err)) == {"error"}


@pytest.mark.parametrize("lost_home", ["/etc/passwd"], indirect=True)
@pytest.mark.parametrize("words", [["jobs"], ["config", "list"], ["status"], ["config", "use", "x"]], ids=" ".join)
def test_a_home_that_cannot_be_read(words: list[str], lost_home: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 5
    told = capsys.readouterr().err
    assert told == f"error: {lost_home}/config.yaml cannot be read: Not a directory\n{HINT}"


@pytest.mark.parametrize("lost_home", ["/etc/passwd"], indirect=True)
@pytest.mark.parametrize("words", [["down"], ["runs", "list"]], ids=" ".join)
def test_nothing_is_in_a_home_that_is_none(words: list[str], lost_home: str) -> None:
    assert main(words) == 0


@pytest.mark.parametrize("words", [["run", "job.yaml"], ["submit", "job.yaml", "--dry-run"]], ids=" ".join)
def test_a_folder_that_was_deleted_under_the_shell(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: the folder that this was typed in is not there any more\nhint: ")
    assert main(["version"]) == 0


PRINTERS = [
    ["--help"], ["--version"], [], ["schema"], ["schema", "--help"], ["version", "-o", "json"], ["models"],
    ["models", "mlp"], ["datasets", "-o", "json"], ["losses", "-o", "yaml"], ["optimizers", "-o", "name"],
    ["validate", "job.yaml"], ["run", "job.yaml", "--dry-run"], ["config", "list", "-o", "json"],
]  # fmt: skip


@pytest.fixture
def with_output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    """Have a standard stream go to a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(JOB)

    def to(stream: str, file: str) -> None:
        monkeypatch.setattr(sys, stream, open(file, "w"))  # noqa: SIM115 - at its end it is /dev/null's

    return to


@pytest.mark.parametrize("words", PRINTERS, ids=" ".join)
def test_a_standard_output_that_is_full(
    words: list[str], with_output: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with_output("stdout", "/dev/full")
    assert main(words) == 5
    assert "standard output: No space left on device" in capsys.readouterr().err
    sys.stdout.flush()
    assert main(["--version"]) == 0, "what was lost is not tried again"


@pytest.mark.parametrize("words", PRINTERS, ids=" ".join)
def test_a_standard_output_that_is_closed(
    words: list[str], with_output: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "stdout", None)
    assert main(words) == 5
    assert "standard output: Bad file descriptor" in capsys.readouterr().err


@pytest.mark.parametrize("words", PRINTERS, ids=" ".join)
def test_a_reader_that_has_gone(
    words: list[str], with_output: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", open(writer, "w"))  # noqa: SIM115
    try:
        code = main(words)
    except SystemExit as left:  # click's way
        code = int(left.code or 0)
    assert code == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["vaildate"], 2),
        (["validate", "missing.yaml"], 2),
        (["jobs"], 5),
        (["validate", "job.yaml"], 0),
        (["models", "x"], 3),
    ],
)
def test_a_standard_error_that_is_full_changes_nothing(
    words: list[str], code: int, with_output: Callable[[str, str], None]
) -> None:
    with_output("stderr", "/dev/full")
    assert main(words) == code
    sys.stderr.flush()


def test_no_descriptor_that_is_left_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe, a socket or a process takes one too, and then no file is named."""

    def fail(_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("epochal.cli.main._run", fail)
    assert main(["jobs"]) == 5
    assert "ulimit -n" in capsys.readouterr().err


def test_a_name_that_is_no_text_is_printed(
    with_output: Callable[[str, str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schema", "--file", os.fsdecode(b"r\xe9.json")]) == 0
    with_output("stdout", str(tmp_path / "printed"))
    (tmp_path / os.fsdecode(b"r\xe9.yaml")).write_bytes((tmp_path / "job.yaml").read_bytes())
    assert main(["validate", os.fsdecode(b"r\xe9.yaml")]) == 0
    assert (tmp_path / "printed").read_text() == "r\\udce9.yaml: ok (a)\n"
