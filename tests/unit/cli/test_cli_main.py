"""The frame of the command line: the table, its help, and how errors come out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import click
import pytest

from epochal.cli.main import main
from epochal.cli.table import COMMANDS, SECTIONS
from epochal.errors import EpochalError, NotFoundError, Problem, SpecError, UnreachableError


@pytest.fixture
def add_command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int | None]], None]:
    """Put a function into the table as the command `probe`."""

    def add(function: Callable[[], int | None]) -> None:
        module = ModuleType("probe_command")
        module.command = click.command("probe")(click.option("-o", "--output")(_ignoring_output(function)))  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "probe_command", module)
        monkeypatch.setitem(COMMANDS, "probe", "probe_command:command")

    return add


def _ignoring_output(function: Callable[[], int | None]) -> Callable[..., int | None]:
    return lambda output: function()


def test_help_lists_every_command_in_its_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for section, commands in SECTIONS.items():
        assert f"{section}:" in shown
        for name, (_, summary) in commands.items():
            assert f"  {name} " in shown
            assert summary in shown


def test_no_arguments_are_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Usage: epochal" in capsys.readouterr().out


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "epochal 0.1.0\n"


@pytest.mark.parametrize("name", ["validate", "schema", "version"])
def test_a_command_s_help_begins_as_the_table_says_what_it_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = import_module(COMMANDS[name].partition(":")[0]).command
    assert isinstance(command, click.Command)
    assert main([name, "--help"]) == 0
    assert f"Usage: epochal {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["vaildate"], "no command is named 'vaildate'", "did you mean 'validate'?"),
        (["validate"], "Missing argument 'FILE...'.", "`epochal validate --help` shows how it is used"),
        (["validate", "x", "--colour"], "No such option '--colour'.", "`epochal validate --help` shows how it is used"),
        (["--colour", "validate"], "No such option '--colour'.", "`epochal --help` shows how it is used"),
    ],
)
def test_a_wrong_command_is_told_and_exits_with_2(
    args: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"error: {message}\nhint: {hint}\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EpochalError("it broke"), 1),
        (NotFoundError("run", "abc"), 3),
        (UnreachableError("no answer", "start it"), 5),
        (SpecError("job.yaml", (Problem("a.b", "is wrong", 3, 4, value={1}, hint="mend it"),)), 2),
    ],
)
def test_an_expected_error_is_a_message_or_an_object(
    error: EpochalError,
    code: int,
    add_command: Callable[[Callable[[], None]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    add_command(fail)
    assert main(["probe"]) == code
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {error.message}\n")
    assert ("hint: " in shown) == bool(error.hint)
    for form in (["-o", "json"], ["-ojson"], ["--output", "json"], ["--output=json"]):
        assert main(["probe", *form]) == code
        told = json.loads(capsys.readouterr().err)["error"]
        assert (told["type"], told["message"], told["hint"]) == (type(error).__name__, error.message, error.hint)
        assert len(told.get("problems", [])) == len(getattr(error, "problems", ()))


def test_a_bug_shows_its_traceback(add_command: Callable[[Callable[[], None]], None]) -> None:
    def fail() -> None:
        raise KeyError("a bug")

    add_command(fail)
    with pytest.raises(KeyError, match="a bug"):
        main(["probe"])


def test_ctrl_c_exits_with_130(add_command: Callable[[Callable[[], None]], None]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    add_command(interrupted)
    assert main(["probe"]) == 130


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (2, 2)])
def test_what_a_command_returns_is_the_exit_code(
    returned: int | None, code: int, add_command: Callable[[Callable[[], int | None]], None]
) -> None:
    add_command(lambda: returned)
    assert main(["probe"]) == code


def test_a_command_may_exit_through_click(add_command: Callable[[Callable[[], None]], None]) -> None:
    add_command(lambda: click.get_current_context().exit(4))
    assert main(["probe"]) == 4
