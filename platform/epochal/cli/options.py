"""Options that several commands share, so that they read and behave alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from math import isfinite
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from epochal.cli import render
from epochal.cli.render import Output
from epochal.errors import UsageError
from epochal.ledger.values import GRACE_SECONDS, LONGEST_GRACE
from epochal.redaction import said
from epochal.settings import DEFAULT_RETENTION, Retention
from epochal.units import Duration
from epochal.urls import has_password

Command = TypeVar("Command", bound=Callable[..., Any])

_DEFAULTS: dict[str, float] = asdict(DEFAULT_RETENTION)
_FOR_EVER = "forever"


def output_option(*formats: Output, default: Output = Output.TABLE) -> Callable[[Command], Command]:
    """``-o FORMAT``: the command gets ``output: Output``. All formats are allowed where none is named."""
    allowed = [str(output) for output in formats or Output]
    return click.option(
        "-o", "--output", type=click.Choice(allowed), default=str(default), show_default=True,
        callback=lambda _ctx, _parameter, value: Output(value), help="How to print the result.",
    )  # fmt: skip


def without_passwords(hint: str) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """A callback for an option that takes a URL: no password on the command line, where everybody on the machine reads
    it. ``hint``: where it may stand instead. A variable in the option's place may hold one."""

    def check(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        typed = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if typed and value and has_password(value):
            option = parameter.opts[0]
            raise UsageError(f"{option} has a password in it, which everybody on this machine could read", hint)
        return value

    return check


PASSWORD_OF_LEDGER = "put the URL into EPOCHAL_LEDGER, or the password into PGPASSWORD or ~/.pgpass"


def set_option(command: Command) -> Command:
    """``-s PATH=VALUE``, repeatable: the command gets ``overrides: tuple[str, ...]`` for ``load_spec``."""
    return click.option(
        "-s", "--set", "overrides", multiple=True, metavar="PATH=VALUE",
        help="Override a field of the spec, such as train.epochs=3. Repeatable.",
    )(command)  # fmt: skip


def grace_option(command: Command) -> Command:
    """``--grace DURATION``: the command gets ``grace: float | None``, in seconds."""
    return click.option(
        "--grace", metavar="DURATION", callback=_grace,
        help=f"How long workers may take to answer before they are killed, such as 5s.  [default: {GRACE_SECONDS:g}s]",
    )(command)  # fmt: skip


def duration(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """The callback of an option that takes a duration: in seconds; None where none was given."""
    try:
        return None if text is None else Duration.parse(text).seconds
    except ValueError as error:
        raise click.BadParameter(said(error)) from error


def _grace(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    grace = duration(context, parameter, text)
    if grace is not None and grace > LONGEST_GRACE:
        raise click.BadParameter(f"expected at most {Duration(LONGEST_GRACE)}: without it a job goes on to its end")
    return grace


class _Finite(click.FloatRange):
    """Without `nan` and `inf`, which are numbers to Python."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        return number if isfinite(number) else self.fail(f"{value} is not a finite number.", param, ctx)


AMOUNT = _Finite(0)
"""The type of an option that takes a number of at least 0."""


def spec_argument(command: Command) -> Command:
    """One job spec: the command gets ``source: str`` for ``load_spec``; `-` reads standard input."""
    return click.argument("source", metavar="FILE")(command)


def retain_option(*kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option, which gives a ``Retention``; ``kinds`` are those that the command deletes.

    Where these include ``jobs`` every other age matters too: a job is kept as long as anything else of it is.
    """

    def parse(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> Retention:
        typed = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        try:
            kept = retention(given)
        except click.BadParameter as error:
            error.param_hint = None if typed else "EPOCHAL_RETAIN"
            raise
        # The variable is for all commands: `epochal up` hands it to its server and its agent.
        if "jobs" not in kinds and typed:
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
