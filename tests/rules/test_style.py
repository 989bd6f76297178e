"""How the code reads, as far as a machine can tell."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from code_base import ROOT, SOURCE, Function, Module, files, modules

MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 400, 50, 6
NAMELESS = {"utils", "util", "helpers", "common", "core", "base", "misc"}
MAY_PRINT = {"render.py", "progress.py"}
UNDOCUMENTED_UP_TO = 12
"""Lines of a public function that its name and types may explain alone."""

MODULES = modules()


def test_platform_is_no_package() -> None:
    assert not (SOURCE.parent / "__init__.py").exists(), "it would shadow the standard library's `platform`"


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): _lines(path) for path in files() if path.suffix == ".py"}
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_FILE}, "a part wants a name of its own"


def test_functions_are_short() -> None:
    assert not [where for where, node, _ in _functions() if _length(node) > MAX_FUNCTION]


def test_functions_take_few_parameters() -> None:
    counts = {where: _parameters(node, is_method) for where, node, is_method in _functions() if not _is_command(node)}
    assert not {where: count for where, count in counts.items() if count > MAX_PARAMETERS}


def test_modules_are_named_for_what_they_hold() -> None:
    names = {str(module): _names(module) for module in MODULES}
    assert not {module: parts & NAMELESS for module, parts in names.items() if parts & NAMELESS}


def test_modules_say_what_they_are() -> None:
    assert not [str(module) for module in MODULES if module.tree.body and not ast.get_docstring(module.tree)]


def test_public_things_are_documented() -> None:
    """A class with methods (by itself or in one of them), and a function too long for its name and types to explain.

    Other methods are left out: those that implement an interface are documented there.
    """
    assert not [
        f"{module}:{node.lineno}: {node.name}"
        for module in MODULES
        for node in module.tree.body
        if isinstance(node, Function | ast.ClassDef)
        and not node.name.startswith("_")
        and _wants_docstring(node)
        and not _has_docstring(node)
    ]


def test_only_rendering_prints() -> None:
    silent = [module for module in MODULES if module.package != "cli" or module.path.name not in MAY_PRINT]
    calls = [(module, node) for module in silent for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    prints = [f"{module}:{call.lineno}: {ast.unparse(call.func)}" for module, call in calls if _prints(call)]
    assert not prints, "printing belongs in cli/render.py"


def _functions() -> Iterator[tuple[str, Function, bool]]:
    """Every function: where it is, its definition, and whether it is a method."""
    for module in MODULES:
        for node, is_method in module.functions():
            yield f"{module}:{node.lineno}: {node.name}", node, is_method


def _names(module: Module) -> set[str]:
    return {part.removesuffix(".py") for part in module.path.relative_to(SOURCE).parts}


def _lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


def _length(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _parameters(node: Function, is_method: bool) -> int:
    taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    static = any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list)
    return len(taken) - (is_method and not static)


def _is_command(node: Function) -> bool:
    """The body of a click command: its parameters are the command's options."""
    return any("command(" in ast.unparse(decorator) for decorator in node.decorator_list)


def _wants_docstring(node: Function | ast.ClassDef) -> bool:
    if isinstance(node, ast.ClassDef):
        return any(isinstance(child, Function) for child in node.body)
    return _length(node) > UNDOCUMENTED_UP_TO


def _has_docstring(node: Function | ast.ClassDef) -> bool:
    methods = [child for child in node.body if isinstance(child, Function)] if isinstance(node, ast.ClassDef) else []
    return any(ast.get_docstring(part) for part in [node, *methods])


def _prints(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    return name in {"print", "click.echo", "click.secho", "rich.print", "sys.stdout.write", "sys.stderr.write"}


RENAMED = {
    "standing", "carrier", "heart", "closing", "settlement", "wishes", "manner", "boundary", "refusals",
    "run_agreement", "leftovers", "surroundings", "stragglers", "user_side", "agent_side", "upkeep", "as_json",
    "meeting",
}  # fmt: skip
"""What had to be explained to newcomers, and has a usual name now."""


def test_nothing_has_a_name_that_had_to_be_explained() -> None:
    named = {str(module): module.path.stem for module in MODULES}
    for module in MODULES:
        for node in ast.walk(module.tree):
            if isinstance(node, Function | ast.ClassDef):
                named[f"{module}:{node.lineno}"] = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.name).strip("_")
    assert not {where: name for where, name in named.items() if name.lower() in RENAMED}
