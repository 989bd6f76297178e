"""`epochal run` in a home that fills up, or that nobody can write: it says so, it ends, and it goes on once it can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from epochal.ledger.ledger import Ledger
from epochal.settings import Home

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("mount") is None, reason="needs `mount`"),
]
EPOCHAL = [sys.executable, "-m", "epochal.cli.main"]
END_SECONDS = 150
JOB = """
version: 1
name: full
model: {name: mlp, params: {hidden: [600, 600]}}
data: {name: wine}
train: {epochs: 6, global_batch_size: 32}
objective: {metric: val/loss, mode: min}
retry: {infra: 1}
"""
TOLD = ("No space left on device", "disk is full", "unable to open database file")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small disk in memory with the home on it; the job is elsewhere."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr}")
    monkeypatch.setenv("EPOCHAL_HOME", str(place / "home"))
    (tmp_path / "job.yaml").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def epochal(*words: str) -> tuple[int, str]:
    """A command's exit code, and what it said."""
    done = subprocess.run(
        [*EPOCHAL, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=END_SECONDS, check=False
    )
    print(f"$ epochal {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.returncode, done.stdout + done.stderr


def fill(disk: Path, leaving: int) -> Path:
    """Take what room there is but ``leaving`` bytes; the file that has it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    os.truncate(ballast, max(0, ballast.stat().st_size - leaving))
    return ballast


@pytest.mark.parametrize("leaving", [0, 8_000, 200_000, 700_000, 1_500_000, 4_000_000, 9_000_000])
def test_a_home_with_little_room(disk: Path, leaving: int) -> None:
    (disk / "home").mkdir()
    ballast = fill(disk, leaving)
    code, said = epochal("run", "job.yaml", "-q")
    assert code in (1, 5)
    assert "Traceback" not in said
    assert any(words in said for words in TOLD)

    ballast.unlink()
    code, said = epochal("run", "job.yaml", "-q")
    assert code == 0, "there is room again"
    home = Home(disk / "home")
    with Ledger.open(home.ledger_url) as ledger:
        left = [job for job in ledger.jobs() if not job.state.is_terminal]
    for job in left:
        assert epochal("run", "--resume", job.id, "-q")[0] == 0


@pytest.mark.parametrize("words", [["run", "job.yaml"], ["up"], ["ui"], ["db", "upgrade"], ["submit", "job.yaml"]])
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_a_home_that_is_read_only(disk: Path, words: list[str], used: bool) -> None:
    (disk / "home").mkdir()
    if used:
        assert epochal("db", "upgrade")[0] == 0
        (disk / "home" / "ray_token").write_text("0" * 64)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    code, said = epochal(*words)
    assert code == 5
    assert said.startswith("error: ")
    assert said.endswith("hint: set EPOCHAL_HOME to a folder that you can write\n") or words[0] == "submit"


def test_a_home_of_somebody_else(disk: Path) -> None:
    home = disk / "home"
    home.mkdir(mode=0o700)
    program = (
        "import os, sys; from epochal.cli.main import main; import epochal.cli.dispatch, epochal.ledger.ledger;"
        "import epochal.cli.commands.db; os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "sys.exit(main(['db', 'upgrade']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (5, ""), done.stderr
    assert "Permission denied" in done.stderr
    assert done.stderr.endswith("hint: set EPOCHAL_HOME to a folder that you can write\n")
