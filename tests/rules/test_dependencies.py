"""Every declared dependency is imported somewhere, or it is said here why it is declared."""

from __future__ import annotations

import re
import tomllib

from code_base import ROOT, modules

from epochal.catalog.providers import PROVIDERS
from epochal.engine.hidden import OURS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
IMPORTED_AS = {
    "helm-python-sdk": "helm_python",
    "import-linter": "importlinter",
    "kubernetes-validate": "kubernetes_validate",
    "lightning-utilities": "lightning_utilities",
    "nvidia-ml-py": "pynvml",
    "pillow": "PIL",
    "prometheus-client": "prometheus_client",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "torch-geometric": "torch_geometric",
}
"""Where a package's name is not that of its module."""

NOT_IMPORTED = {
    "flask-wtf": "MLflow's pages that ask for a password",
    "httptools": "uvicorn parses HTTP with it, and installs it only on request",
    "psycopg": "SQLAlchemy loads it for postgresql+psycopg:// URLs",
    "s3fs": "fsspec loads it for s3:// URLs",
    "mypy": "a tool", "ruff": "a tool", "import-linter": "a tool",
    "pytest-timeout": "a plugin of pytest", "pytest-xdist": "a plugin of pytest",
    "types-PyYAML": "types for mypy", "types-psutil": "types for mypy",
}  # fmt: skip


def names(*lists: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~ ;]", requirement)[0] for requirements in lists for requirement in requirements}


FOR_USERS = names(PROJECT["dependencies"], *(requirements for extra, requirements in EXTRAS.items() if extra != "dev"))


def test_what_a_users_module_must_not_hide_is_what_we_import() -> None:
    imported = {IMPORTED_AS.get(name, name) for name in FOR_USERS - NOT_IMPORTED.keys()}
    imported -= {"kubernetes"}  # agents and commands import it, and workers do not
    imported -= {one.module for one in PROVIDERS.values()}  # workers import the one that a spec names
    assert imported | {"epochal"} == OURS


def test_every_declared_dependency_is_imported() -> None:
    platform = {module for one in modules() for module, _ in one.imports()}
    tests = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    for name in sorted(FOR_USERS | names(EXTRAS["dev"])):
        module = IMPORTED_AS.get(name, name)
        found = module in platform or (name not in FOR_USERS and is_imported(module, tests))
        assert found != (name in NOT_IMPORTED), name


def is_imported(module: str, sources: list[str]) -> bool:
    """By its words alone: to parse all of the tests takes longer than all other rules."""
    line = re.compile(rf"^ *(?:import|from) {module}\b", re.MULTILINE)
    return any(module in source and line.search(source) for source in sources)
