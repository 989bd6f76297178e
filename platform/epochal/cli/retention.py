"""``--retain``: how long what jobs leave is kept once they have ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click
from click.core import ParameterSource

from epochal.cli import render
from epochal.redaction import said
from epochal.settings import DEFAULT_RETENTION, Retention
from epochal.units import Duration

_DEFAULTS: dict[str, float] = asdict(DEFAULT_RETENTION)
_FOR_EVER = "forever"


def retain_option(*kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option, which gives a ``Retention``; ``kinds`` are those that the command deletes.

    Where these include ``jobs`` every other age matters too: a job is kept as long as anything else of it is.
    """

    def parse(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> Retention:
        kept = retention(given)
        # The variable is for all commands: `epochal up` hands it to its server and its agent.
        if "jobs" not in kinds and context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
            _require_among(kinds, given, context.command_path)
        if "jobs" in kinds and kept.jobs != kept.jobs_at_least and any(one.startswith("jobs=") for one in given):
            age = _FOR_EVER if kept.jobs_at_least is None else f"for {Duration(kept.jobs_at_least)}"
            render.warning(f"the ledger keeps jobs {age}, because it does so as long as anything else of them is kept")
        return kept

    defaults = ", ".join(f"{kind}={Duration(_DEFAULTS[kind])}" for kind in kinds)
    return click.option(
        "--retain", "retention", metavar="KIND=AGE", multiple=True, envvar="EPOCHAL_RETAIN", callback=parse,
        help=f"How long what ended jobs left is kept, or {_FOR_EVER}; repeatable.  [default: {defaults}]",
    )  # fmt: skip


def _require_among(kinds: tuple[str, ...], given: tuple[str, ...], command: str) -> None:
    for one in given:
        if one.partition("=")[0] not in kinds:
            what = f"`{command}` keeps {', '.join(kinds[:-1])} and {kinds[-1]}"
            raise click.BadParameter(f"{one!r}: {what}; for the rest see `epochal server --help`")


def retention(given: tuple[str, ...]) -> Retention:
    """
    >>> retention(("logs=7d", "code=forever")).logs
    604800.0
    """
    ages: dict[str, float | None] = {}
    for one in given:
        kind, _, age = one.partition("=")
        if kind not in _DEFAULTS:
            raise click.BadParameter(f"{one!r}: expected one of {', '.join(_DEFAULTS)}, and its age: logs=30d")
        try:
            ages[kind] = None if age == _FOR_EVER else Duration.parse(age).seconds
        except ValueError as error:
            raise click.BadParameter(f"{one!r}: {said(error)}, or {_FOR_EVER}") from error
    return Retention(**ages)
