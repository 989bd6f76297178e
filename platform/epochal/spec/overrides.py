"""``--set path=value``: fields of the spec given on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from epochal.errors import Problem, SpecError
from epochal.redaction import said
from epochal.spec.source import MAX_DEPTH, parse_value
from epochal.spec.tree import Node

ORIGIN = "--set"


def apply(tree: Node, overrides: Sequence[str]) -> tuple[Node, list[Problem]]:
    """``tree`` with each ``path=value`` put in, later ones over earlier ones, and what is wrong with them.

    A path is dotted; a number is an index of a list (one past its end appends). Mappings that are missing are made.
    A value is YAML: ``3``, ``1e-3``, ``true``, ``[16, 32]``, ``{name: sgd, lr: 0.1}``; nothing is null.
    """
    problems = []
    for override in overrides:
        try:
            tree = _put(tree, override)
        except (ValueError, IndexError) as error:
            problems.append(Problem(override.partition("=")[0][:200], said(error), origin=ORIGIN))
        except SpecError as error:  # of the value's own text, which is on no line of the file
            message = f"{error.problems[0].message}; put text with special characters in quotes"
            problems.append(Problem(override.partition("=")[0][:200], message, origin=ORIGIN))
    return tree, problems


def _put(tree: Node, override: str) -> Node:
    dotted, equals, text = override.partition("=")
    parts = dotted.strip().split(".")
    if not equals:
        raise ValueError("expected PATH=VALUE, such as train.epochs=3")
    if not all(parts) or len(parts) > MAX_DEPTH:
        raise ValueError("expected a dotted path, such as train.epochs")
    return tree.put(tree.resolve(dotted.strip()), parse_value(text))
