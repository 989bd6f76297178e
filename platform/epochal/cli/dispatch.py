"""Runs the subcommands of ``table``, each imported when it is called, and tells their errors."""

from __future__ import annotations

import os
from typing import Any

import click

from epochal.cli import render
from epochal.cli.table import COMMANDS, help_text
from epochal.errors import EpochalError, UsageError, did_you_mean
from epochal.registry import resolve


class Commands(click.Group):
    """A group that imports a subcommand when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = resolve(COMMANDS[cmd_name])
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name]} is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            hint = did_you_mean(name, tuple(COMMANDS))
            raise UsageError(f"no command is named {name!r}", hint)
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        return help_text()

    def invoke(self, ctx: click.Context) -> Any:
        """A command's return value is its exit code; None is 0."""
        ctx.exit(super().invoke(ctx) or 0)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Every command of ``table``."""


def run(arguments: list[str]) -> int:
    """Run the command that ``arguments`` name and return its exit code, with expected errors told on stderr."""
    color = False if os.environ.get("NO_COLOR") else None
    try:
        code = cli.main(arguments, prog_name="epochal", standalone_mode=False, color=color)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except click.ClickException as error:
        return _usage(error, arguments)
    except EpochalError as error:
        return _expected(error, arguments)
    return int(code or 0)


def _usage(error: click.ClickException, arguments: list[str]) -> int:
    """An error of click's own, in our words' shape."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "epochal"
    return _expected(UsageError(error.format_message(), f"`{command} --help` shows how it is used"), arguments)


def _expected(error: EpochalError, arguments: list[str]) -> int:
    render.error(error, render.Output.JSON if _wants_json(arguments) else render.Output.TABLE)
    return error.exit_code


def _wants_json(arguments: list[str]) -> bool:
    """Read from the raw arguments, since a command whose arguments are wrong was never parsed."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    return any(
        one in {"-ojson", "-o=json", "--output=json"} or (one in {"-o", "--output"} and two == "json")
        for one, two in pairs
    )
