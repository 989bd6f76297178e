"""Runs the subcommands of ``table``, each imported when it is called, and tells their errors."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import click

from epochal import settings
from epochal.cli import render
from epochal.cli.table import COMMANDS, STANDARD_OUTPUT, help_text
from epochal.errors import EpochalError, UnreachableError, UsageError, did_you_mean
from epochal.registry import resolve

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_TOO_MANY = frozenset({errno.EMFILE, errno.ENFILE})


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
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:  # which completion is
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
    color = False if os.environ.get("NO_COLOR") else None  # which click itself does not know
    try:
        code = cli.main(arguments, prog_name="epochal", standalone_mode=False, color=color)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except click.ClickException as error:
        return _usage(error, arguments)
    except EpochalError as error:
        return tell(error, arguments)
    return int(code or 0)


def _usage(error: click.ClickException, arguments: list[str]) -> int:
    """An error of click's own, in our words' shape."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "epochal"
    return tell(UsageError(error.format_message(), f"`{command} --help` shows how it is used"), arguments)


def tell_of_file(error: OSError, arguments: list[str]) -> int:
    """Tell of a file, or of standard output, that cannot be read or written, wherever that was; the exit code.

    Raises:
        OSError: this one, where it is about no file: a bug.
    """
    if error.filename is None and error.errno not in _FULL | _TOO_MANY:  # a write that fails names no file
        try:
            os.getcwd()
        except FileNotFoundError:
            gone = UsageError("the folder that this was typed in is not there any more", "go to another one: `cd`")
            return tell(gone, arguments)
        raise error
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "a file"
    return tell(UnreachableError(f"{name}: {error.strerror}", _remedy(error.errno, name)), arguments)


def _remedy(number: int | None, name: str) -> str:
    if name == STANDARD_OUTPUT:
        return "what the command does is done; have its output go elsewhere"
    home, path = settings.home().root, Path(name)
    if number in _FULL:
        place = path if path.is_absolute() else home
        return f"make room on the disk of {place}, and type the command again; `epochal doctor` shows what is free"
    if number in _TOO_MANY:
        return "allow more open files: `ulimit -n 65536`"
    if path.is_relative_to(home) or home.is_relative_to(path):
        return "set EPOCHAL_HOME to a folder that you can write"
    return "look at that path and its permissions, and type the command again"


def tell(error: EpochalError, arguments: list[str]) -> int:
    """Print the error, in the format that was asked for; its exit code."""
    render.error(error, render.Output.JSON if _wants_json(arguments) else render.Output.TABLE)
    return error.exit_code


def _wants_json(arguments: list[str]) -> bool:
    """Read from the raw arguments, since a command whose arguments are wrong was never parsed."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    return any(
        one in {"-ojson", "-o=json", "--output=json"} or (one in {"-o", "--output"} and two == "json")
        for one, two in pairs
    )
