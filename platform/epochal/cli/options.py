"""Options that several commands share, so that they read and behave alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from epochal.cli.render import Output
from epochal.errors import UsageError
from epochal.ledger.values import GRACE_SECONDS, LONGEST_GRACE
from epochal.redaction import said
from epochal.units import Duration
from epochal.urls import has_password

Command = TypeVar("Command", bound=Callable[..., Any])


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
        "--grace", metavar="DURATION", callback=lambda _ctx, _parameter, value: value and _grace(value),
        help=f"How long workers may take to answer before they are killed, such as 5s.  [default: {GRACE_SECONDS:g}s]",
    )(command)  # fmt: skip


def _grace(text: str) -> float:
    try:
        grace = Duration.parse(text).seconds
    except ValueError as error:
        raise click.BadParameter(said(error)) from error
    if grace > LONGEST_GRACE:
        raise click.BadParameter(f"expected at most {Duration(LONGEST_GRACE)}: without it a job goes on to its end")
    return grace


def spec_argument(command: Command) -> Command:
    """One job spec: the command gets ``source: str`` for ``load_spec``; `-` reads standard input."""
    return click.argument("source", metavar="FILE")(command)
