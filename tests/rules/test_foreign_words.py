"""What libraries put into words may hold a password or a token: it is told by `redaction` alone."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

from code_base import modules

from epochal import errors

OURS = {name for name, _ in inspect.getmembers(errors, inspect.isclass)}
BELOW = {"redaction", "urls", "errors"}
"""What tells them, and what it is made of."""
LOGGED = {"debug", "info", "warning", "error", "exception"}


def test_the_words_of_foreign_exceptions_are_told_by_redaction() -> None:
    looked_at = [module for module in modules() if module.package not in BELOW]
    found = [f"{module}:{line}" for module in looked_at for line in bare_words(module.tree)]
    assert not found, "use `said(error)`, `named(error)`, and for a traceback `trace()`, of epochal.redaction"


def test_the_rule_sees_what_it_is_for() -> None:
    written = (
        "try: ...\nexcept ValueError as e:\n  f'{e}'",
        "try: ...\nexcept (EpochalError, OSError) as e:\n  f'{e!r}'",
        "try: ...\nexcept Exception as e:\n  str(e)",
        "try: ...\nexcept Exception as e:\n  log.warning('%s', e)",
        "def tell(e: httpx.HTTPError): return str(e)",
        "def tell(e: Exception | None = None): return f'{e}'",
        "traceback.format_exc()",
    )
    assert [list(bare_words(ast.parse(one))) for one in written] == [[3], [3], [3], [3], [1], [1], [1]]
    fine = (
        "try: ...\nexcept EpochalError as e:\n  f'{e}'",
        "try: ...\nexcept OSError as e:\n  f'{e.strerror} {type(e).__name__} {said(e)}'",
        "def tell(e: SpecError): return str(e)",
        "def tell(e: str): return str(e)",
    )
    assert not [line for one in fine for line in bare_words(ast.parse(one))]


def bare_words(tree: ast.AST) -> Iterator[int]:
    """Lines in which a foreign exception, by the name that it is caught or given under, becomes text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.name and _is_foreign(node.type):
            yield from _texts(node, node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                if one.annotation is not None and _is_foreign(one.annotation):
                    yield from _texts(node, one.arg)
        elif isinstance(node, ast.Call) and "format_exc" in [getattr(node.func, one, "") for one in ("id", "attr")]:
            yield node.lineno


def _is_foreign(kinds: ast.expr | None) -> bool:
    """Whether it names a class of exceptions that is not one of ours."""
    names = [node.id if isinstance(node, ast.Name) else node.attr for node in ast.walk(kinds or ast.Tuple([]))
             if isinstance(node, ast.Name | ast.Attribute)]  # fmt: skip
    return any(name.endswith(("Error", "Exception")) and name not in OURS for name in names)


def _texts(scope: ast.AST, name: str) -> Iterator[int]:
    for node in ast.walk(scope):
        if isinstance(node, ast.FormattedValue):
            words: list[ast.expr] = [node.value]
        elif isinstance(node, ast.Call) and _makes_text(node.func):
            words = node.args
        else:
            continue
        if any(isinstance(one, ast.Name) and one.id == name for one in words):
            yield node.lineno


def _makes_text(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        return function.attr in LOGGED
    return isinstance(function, ast.Name) and function.id in {"str", "repr"}
