"""``add-an-architecture.md`` works as it is written: followed in a copy of the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from code_base import DOCS, ROOT
from markdown import blocks

BLOCKS = blocks(DOCS / "how-to" / "add-an-architecture.md")
FILES = {block.path: block.text.partition("\n")[2] for block in BLOCKS if block.path}
CHECKS, TRAINING = (block.text for block in BLOCKS if block.language == "sh")
TABLE = "platform/epochal/catalog/architectures/__init__.py"
END_OF_TABLE = "    },\n)"
PROGRAMS = {
    "make index": [sys.executable, "-m", "epochal.catalog.generate"],
    "epochal": [sys.executable, "-m", "epochal.cli.main"],
    "python": [sys.executable],
}
"""The virtual environment's programs by what the reader types; the copy has no environment of its own."""


def added_to_table(line: str) -> str:
    table = (ROOT / TABLE).read_text(encoding="utf-8")
    assert table.count(END_OF_TABLE) == 1
    return table.replace(END_OF_TABLE, f"{line}{END_OF_TABLE}")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "docs")
    for folder in ("platform", "jobs", "tests"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", root)
    for path, text in FILES.items():
        (root / path).write_text(added_to_table(text) if path == TABLE else text, encoding="utf-8")
    return root


def follow(line: str, root: Path) -> subprocess.CompletedProcess[str]:
    line = line.partition("  #")[0].strip()
    typed = next(name for name in PROGRAMS if line.startswith(name))
    environ = os.environ | {"PYTHONPATH": str(root / "platform")}
    command = [*PROGRAMS[typed], *line.removeprefix(typed).split()]
    return subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True, check=False)


def test_the_page_adds_one_file_one_line_one_yaml() -> None:
    new = [path for path in FILES if not (ROOT / path).exists()]
    assert sorted(new) == ["jobs/maxout.yaml", "platform/epochal/catalog/architectures/maxout.py"]
    assert FILES[TABLE].count("\n") == 1


@pytest.mark.slow
def test_every_check_passes(copy: Path) -> None:
    outputs = {}
    for line in CHECKS.splitlines():
        result = follow(line, copy)
        assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"
        outputs[line.split()[0], line.split()[1]] = result.stdout
    assert "Linear pieces of each unit" in outputs["epochal", "models"]
    assert " passed" in outputs["python", "-m"]
    index = json.loads((copy / "platform" / "epochal" / "catalog" / "index.json").read_text(encoding="utf-8"))
    assert "maxout" in json.dumps(index)


def test_added_file_reads_like_the_others(copy: Path) -> None:
    new = copy / "platform" / "epochal" / "catalog" / "architectures" / "maxout.py"
    for tool in (["ruff", "check"], ["ruff", "format", "--check"]):
        subprocess.run([sys.executable, "-m", *tool, "--config", str(copy / "pyproject.toml"), str(new)], check=True)


@pytest.mark.slow
def test_it_trains(copy: Path) -> None:
    follow("make index", copy)
    result = follow(f"{TRAINING.strip()} -o json", copy)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["state"] == "SUCCEEDED"
