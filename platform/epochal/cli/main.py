"""The command `epochal`: one visible table of subcommands, each imported when it is used.

Nothing heavy may be imported here: `epochal --help` has to answer at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Run": {
        "run": ("epochal.cli.commands.run:command", "Train from a job spec, here and now."),
        "validate": ("epochal.cli.commands.validate:command", "Check job specs and print every problem."),
        "plan": ("epochal.cli.commands.plan:command", "Show what a job spec would run, and what it costs."),
    },
    "Inspect": {
        "runs": ("epochal.cli.commands.runs:command", "List, show and compare recorded runs."),
        "ui": ("epochal.cli.commands.ui:command", "Open the MLflow UI on this machine's runs."),
    },
    "Catalog": {
        "models": ("epochal.cli.commands.models:command", "List the architectures, or describe one."),
        "datasets": ("epochal.cli.commands.datasets:command", "List the datasets, or describe one."),
        "tasks": ("epochal.cli.commands.tasks:command", "List the tasks, or describe one."),
        "losses": ("epochal.cli.commands.losses:command", "List the losses, or describe one."),
        "optimizers": ("epochal.cli.commands.optimizers:command", "List the optimizers, or describe one."),
        "schedules": ("epochal.cli.commands.schedules:command", "List the lr schedules, or describe one."),
    },
    "Machine": {
        "doctor": ("epochal.cli.commands.doctor:command", "Check this machine and say what to do."),
        "schema": ("epochal.cli.commands.schema:command", "Print the job spec's JSON Schema, for editors."),
        "version": ("epochal.cli.commands.version:command", "Print the versions of Epochal and what it stands on."),
    },
}
"""Section of the help -> subcommand -> where its ``click.Command`` is, and its line in the help."""

COMMANDS = {name: target for section in SECTIONS.values() for name, (target, _) in section.items()}


class Commands(click.Group):
    """A group that imports a subcommand when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        from epochal.registry import resolve

        command = resolve(COMMANDS[cmd_name])
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name]} is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from epochal.errors import UsageError, did_you_mean

            hint = did_you_mean(name, tuple(COMMANDS))
            raise UsageError(f"no command is named {name!r}", hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(10), summary) for name, (_, summary) in commands.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """A command's return value is its exit code; None is 0."""
        ctx.exit(super().invoke(ctx) or 0)


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from epochal import __version__
        from epochal.cli import render

        render.text(f"epochal {__version__}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Print the version.")  # fmt: skip
def cli() -> None:
    """Train models data-parallel from a job spec, and record every run in MLflow."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every expected error becomes one message on stderr."""
    arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
    color = False if os.environ.get("NO_COLOR") else None
    try:
        code = cli.main(arguments, prog_name="epochal", standalone_mode=False, color=color)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_is_gone()
    except (click.Abort, KeyboardInterrupt):
        return 130
    except click.ClickException as error:
        return _usage(error, arguments)
    except Exception as error:
        from epochal.errors import EpochalError

        if not isinstance(error, EpochalError):
            raise
        return _expected(error, arguments)
    return int(code or 0)


def _usage(error: click.ClickException, arguments: list[str]) -> int:
    """An error of click's own, in our words' shape."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    from epochal.errors import UsageError

    context = getattr(error, "ctx", None)
    command = context.command_path if context else "epochal"
    return _expected(UsageError(error.format_message(), f"`{command} --help` shows how it is used"), arguments)


def _expected(error: Any, arguments: list[str]) -> int:
    from epochal.cli import render

    render.error(error, render.Output.JSON if _wants_json(arguments) else render.Output.TABLE)
    return int(error.exit_code)


def _wants_json(arguments: list[str]) -> bool:
    """Read from the raw arguments, since a command whose arguments are wrong was never parsed."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    return any(
        one in {"-ojson", "-o=json", "--output=json"} or (one in {"-o", "--output"} and two == "json")
        for one, two in pairs
    )


def _reader_is_gone() -> int:
    """`epochal ... | head`: what is still buffered has nowhere to go, so give it to /dev/null without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


if __name__ == "__main__":
    sys.exit(main())
