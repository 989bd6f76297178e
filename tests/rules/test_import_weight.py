"""Code that must stay light, and what it must not import; each case in a Python of its own.

The commands are in ``test_layers.py``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from code_base import SOURCE

from epochal.cli.table import COMMANDS
from epochal.ledger.ledger import Ledger

HELP = """
import contextlib, io
from epochal.cli.main import main
with contextlib.redirect_stdout(io.StringIO()): main(["--help"])
"""
INDEX = """
from epochal.catalog.index import KINDS, check, entries
assert len([entries(kind) for kind in KINDS]) == 6
check({"model": {"name": "cnn"}})
"""
MODELS = """
import contextlib, io
from epochal.cli.main import main
with contextlib.redirect_stdout(io.StringIO()): main(["models"])
"""
DATA = """
from pathlib import Path; from epochal.catalog.build import load_data; from epochal.spec.section import Component
load_data(Component(name="digits"), Path())
"""
LEDGER = "from epochal.ledger.ledger import Ledger; Ledger.open(sys.argv[1]).close()"

ENTRIES = {
    f"epochal.catalog.{file.parent.name}.{file.stem}"
    for kind in ("architectures", "datasets", "tasks", "providers")
    for file in (SOURCE / "catalog" / kind).glob("[!_]*.py")
}
"""The modules of the catalog's entries."""

CASES = {
    "help": (
        HELP,
        {"pydantic", "yaml", "rich", "ray", "torch", "mlflow", "sqlalchemy", "click", "epochal.errors", "epochal.spec"}
        | {target.partition(":")[0] for target in COMMANDS.values()},
    ),
    "the catalog's index": (INDEX, {"torch", "numpy", "ray", "mlflow"}),
    "the package": ("import epochal", {"epochal.spec", "epochal.catalog", "pydantic", "yaml"}),
    "the list of models": (MODELS, {"torch", "numpy", "ray", "mlflow", "sqlalchemy", *ENTRIES}),
    "loading data": (DATA, {"sklearn", "scipy", "pandas", "pyarrow", "torchmetrics"}),
    "a plan": ("import epochal.training.plan", {"sympy", "torch.distributed.tensor", "torch.distributed.checkpoint"}),
    "a loader process": ("import epochal.training.lanes, epochal.training.loader", {"sympy", "torch.distributed.fsdp"}),
    "states and values": ("import epochal.ledger.states, epochal.ledger.values", {"sqlalchemy"}),
    "a new ledger": (LEDGER, {"alembic", "torch", "ray", "mlflow"}),
    "a ledger up to date": (LEDGER, {"alembic", "torch", "ray", "mlflow"}),
}


def test_the_entries_are_found() -> None:
    """Or nothing would be kept away."""
    assert {"epochal.catalog.architectures.cnn", "epochal.catalog.datasets.digits"} < ENTRIES
    assert len(ENTRIES) > 60


@pytest.mark.parametrize("case", CASES)
def test_light_code_imports_nothing_heavy(case: str, tmp_path: Path) -> None:
    code, heavy = CASES[case]
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if case == "a ledger up to date":
        Ledger.open(url).close()
    assert not heavy & imported(code, url)


def imported(code: str, argument: str) -> set[str]:
    """What is in ``sys.modules`` once ``code`` has run."""
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)", argument]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())
