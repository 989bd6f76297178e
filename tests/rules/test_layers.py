"""Who may import what: the layers, the heavy libraries, and what the light commands load."""

from __future__ import annotations

import json
import subprocess
import sys

import grimp
import networkx
from code_base import ROOT, modules

ONLY_IN = {
    "torch": {"catalog", "training", "engine"},
    "torchmetrics": {"catalog", "training"},
    "ray": {"engine"},
    "mlflow": {"tracking"},
    "sqlalchemy": {"ledger"},
    "alembic": {"ledger"},
    "optuna": {"sweeps"},
    "cmaes": {"sweeps"},
    "scipy": {"sweeps", "catalog"},
    "click": {"cli"},
    "rich": {"cli"},
    "kubernetes": {"cluster"},
    "fastapi": {"server"},
}
"""Library -> the packages that may import it."""

HEAVY = {
    "ray", "torch", "mlflow", "sqlalchemy", "alembic", "numpy", "pandas", "sklearn", "fastapi", "uvicorn", "kubernetes",
    "psutil", "optuna", "scipy", "cmaes",
}  # fmt: skip
LIGHT_COMMANDS = [
    ["--help"],
    ["--version"],
    ["run", "--help"],
    ["validate", "jobs/quickstart.yaml"],
    ["schema"],
    ["version"],
    ["models"],
    ["models", "cnn"],
    ["datasets"],
    ["datasets", "digits"],
    ["tasks"],
    ["searchers"],
    ["searchers", "tpe"],
    ["trial-schedulers", "asha"],
    ["validate", "jobs/sweeps/tpe-asha.yaml"],
    ["submit", "jobs/quickstart.yaml", "--dry-run"],
    ["config", "list"],
]
"""Those that talk to a server are looked at in ``tests/integration/client/test_commands.py``, with a server."""

PROBE = """
import contextlib, io, json, sys
from epochal.cli.main import main
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()):
        code = main(arguments)
    loaded = sorted({name.partition(".")[0] for name in sys.modules})
    print(json.dumps({"arguments": arguments, "code": code, "loaded": loaded}))
"""


def test_layers_import_only_downwards() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    result = subprocess.run([*command, "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 kept, 0 broken" in result.stdout


def test_no_module_imports_itself_by_way_of_others() -> None:
    """An import inside a function counts as one at the top. What is imported for type checkers alone does not."""
    graph = grimp.build_graph("epochal", cache_dir=None, exclude_type_checking_imports=True)
    imports = [(one, other) for one in graph.modules for other in graph.find_modules_directly_imported_by(one)]
    assert ("epochal.cli.main", "epochal.cli.dispatch") in imports, "inside a function"
    circles = networkx.strongly_connected_components(networkx.DiGraph(imports))
    assert not [sorted(circle) for circle in circles if len(circle) > 1]


def test_libraries_are_imported_where_they_belong() -> None:
    assert not [
        f"{module}:{line}: {name} belongs in {', '.join(sorted(ONLY_IN[name]))}"
        for module in modules()
        for name, line in module.imports()
        if name in ONLY_IN and module.package not in ONLY_IN[name]
    ]


def test_light_commands_load_nothing_heavy() -> None:
    """One after the other in a single process: what is loaded, the first command loads whose report has it."""
    probe = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(LIGHT_COMMANDS)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert probe.returncode == 0, probe.stderr
    reports = [json.loads(line) for line in probe.stdout.splitlines()]
    assert [report["arguments"] for report in reports] == LIGHT_COMMANDS
    for report in reports:
        assert report["code"] == 0, (report["arguments"], probe.stderr)
        assert not HEAVY & set(report["loaded"]), report["arguments"]
