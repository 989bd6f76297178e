"""Is what Epochal stands on installed, in versions it works with, and does it load?"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from epochal.doctor.check import Check, fail, ok, warn
from epochal.errors import some

IMPORT_SECONDS = 120.0
IMPORTS = ("torch", "ray", "mlflow", "sqlalchemy", "alembic", "optuna", "pyarrow", "sklearn", "safetensors", "psutil")
"""Modules with compiled parts or many of their own requirements: those that an installation breaks."""

_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(?:\[[^]]*\])?\s*(?P<range>[^;]*?)\s*(?:;.*extra\s*==\s*[\"'](?P<extra>\w+).*)?"
)
_BOUND = re.compile(r"(>=|<=|==|!=|<|>)\s*([\w.]+)")
_COMPARE: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": lambda found, bound: found >= bound,
    "<=": lambda found, bound: found <= bound,
    "==": lambda found, bound: found == bound,
    "!=": lambda found, bound: found != bound,
    "<": lambda found, bound: found < bound,
    ">": lambda found, bound: found > bound,
}

# One child imports everything and says after each how it went, so that a crash of one names the one.
_PROBE = """
import importlib, json, sys
for name in sys.argv[1:]:
    print(json.dumps([name, None]), flush=True)
    try:
        module = importlib.import_module(name)
        told = ""
    except BaseException as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0]
    print(json.dumps([name, told]), flush=True)
torch = sys.modules.get("torch")
print(json.dumps(["cuda", getattr(torch.version, "cuda", None) or "" if torch else ""]))
"""


@dataclass(frozen=True)
class Loaded:
    """What importing gave: each module's error (empty: none), and the CUDA version torch was built for."""

    errors: dict[str, str]
    cuda: str = ""


def fits(found: str, wanted: str) -> bool:
    """Whether a version is within a range such as ``>=2.8,<3``; only the numbers of a release count.

    >>> fits("2.13.0+cpu", ">=2.8,<3")
    True
    """
    number = _release(found)
    return all(_COMPARE[operator](number, _release(bound)) for operator, bound in _BOUND.findall(wanted))


def python_version(found: str, wanted: str) -> Check:
    if fits(found, wanted):
        return ok("python", f"{found} (needs {wanted})")
    return fail("python", f"{found}, needs {wanted}", "make a virtual environment with a Python in that range")


def packages(extra: str | None, wanted: dict[str, str], installed: dict[str, str]) -> Check:
    """The requirements of ``extra``, or of the client where it is None: name to range, and name to version."""
    name = f"packages ({extra or 'client'})"
    target = f"epochal[{extra}]" if extra else "epochal"
    missing = sorted(set(wanted) - set(installed))
    if extra and len(missing) == len(wanted):
        return warn(name, "not installed: this machine can submit jobs, not run them", f"pip install '{target}'")
    wrong = [f"{package} {installed[package]} (needs {range_})" for package, range_ in sorted(wanted.items())
             if package in installed and not fits(installed[package], range_)]  # fmt: skip
    if problems := [f"{package} is missing" for package in missing] + wrong:
        return fail(name, some(problems, 5), f"pip install --upgrade '{target}'")
    return ok(name, f"{len(wanted)} packages, all in range")


def imports(loaded: Loaded) -> Check:
    broken = [f"{module}: {error}" for module, error in loaded.errors.items() if error]
    if broken:
        again = "install them again: pip install --force-reinstall 'epochal[cluster]'"
        return fail("imports", some(broken), f"{again}; where they take long, is their disk slow, or the machine busy?")
    return ok("imports", f"{', '.join(loaded.errors)} load")


def load(modules: tuple[str, ...] = IMPORTS) -> Loaded:
    """Import ``modules`` in a child process: takes seconds, and may crash without taking us along."""
    command = [sys.executable, "-c", _PROBE, *modules]
    try:
        told = subprocess.run(command, capture_output=True, timeout=IMPORT_SECONDS, check=False).stdout
        unfinished = "crashed"
    except subprocess.TimeoutExpired as late:
        told, unfinished = late.stdout or b"", f"not done after the {IMPORT_SECONDS:g} s that all have together"
    lines = told.decode("utf-8", "replace")  # libraries may print anything, and may be cut off in it
    results = {module: unfinished if error is None else error for module, error in _pairs(lines)}
    cuda = results.pop("cuda", "")
    return Loaded({module: results.get(module, "not reached") for module in modules}, cuda)


def look() -> Iterator[Check]:
    """The checks of this module, on this machine, but for what has to be imported."""
    yield python_version(platform.python_version(), metadata("epochal")["Requires-Python"] or "")
    for extra in (None, "cluster"):
        wanted = _wanted(extra)
        yield packages(extra, wanted, _installed(wanted))


def has_cluster_extra() -> bool:
    return bool(_installed({"torch": "", "ray": "", "mlflow": ""}))


def _wanted(extra: str | None) -> dict[str, str]:
    found = (_REQUIREMENT.fullmatch(line) for line in requires("epochal") or [])
    return {match["name"]: match["range"] for match in found if match and match["extra"] == extra}


def _installed(names: dict[str, str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _release(text: str) -> tuple[int, ...]:
    """Its numbers but for zeros at their end: ``3.0`` is ``3``."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, re.sub(r"(\.0+)+$", "", match[0]).split("."))) if match else ()


def _pairs(told: str) -> Iterator[tuple[str, str | None]]:
    """The probe's lines, of which a name with None comes before its import; libraries may print others in between."""
    for line in told.splitlines():
        try:
            name, result = json.loads(line)
        except (ValueError, TypeError):
            continue
        yield name, result
