"""``bring-your-own-code.md`` works as it is written: its files make a project that loads and builds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from code_base import DOCS
from markdown import blocks

FILES = {block.path: block.text for block in blocks(DOCS / "how-to" / "bring-your-own-code.md") if block.path}
BUILD = """
from pathlib import Path
from epochal.catalog.build import build_model, load_data
from epochal.spec.load import load_spec

spec = load_spec("job.yaml").spec
data = load_data(spec.data, Path("."))
model = build_model(spec.model, data.info)
for batch in (data.train.fetch([0, 1, 2]), data.train.fetch([])):
    print(tuple(model(batch["input"]).shape))
"""


def test_the_pages_project_validates_and_builds(tmp_path: Path) -> None:
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    run([sys.executable, "-m", "epochal.cli.main", "validate", "job.yaml"], tmp_path)
    assert run([sys.executable, "-c", BUILD], tmp_path).splitlines() == ["(3, 10)", "(0, 10)"]


def run(command: list[str], folder: Path) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout
