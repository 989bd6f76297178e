"""The documents are true: links lead somewhere, commands exist, and what is described is all there is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from code_base import DOCS, ROOT
from markdown import DOCUMENTS, anchors, commands, links, sections
from told_commands import SOURCES, VALUE, commands_in

from epochal.cli.dispatch import cli
from epochal.engine.ray_variables import SHARED
from epochal.ledger.states import EventKind
from epochal.spec import reference

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CLI = sections(DOCS / "cli.md")
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def every_command(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from every_command(found, f"{path} {child}")


def shown(parameter: click.Parameter) -> str:
    """What a page calls it: an option's long name, an argument's name in capitals."""
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    name = re.search(r"[A-Z]+", parameter.metavar or parameter.name.upper())
    assert name is not None
    return name[0]


ANY = ("...", "COMMAND")
COMMANDS = dict(every_command(cli, "epochal"))


def test_every_kind_of_event_is_in_the_table_and_nothing_else() -> None:
    table = sections(DOCS / "concepts.md")["Events"]
    told = [word for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)]
    assert sorted(told) == sorted(EventKind)


def test_variables_of_a_ray_that_others_start_are_documented() -> None:
    text = (DOCS / "how-to" / "run-an-agent.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\b((?:RAY|TORCH)_\w+=[\w.]+)(?=\s)", text)) == {
        "RAY_AUTH_MODE=token", *(f"{name}={value}" for name, value in SHARED.items())
    }  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in links(document):
        target, _, anchor = link.partition("#")
        if target.startswith(("http://", "https://")):
            continue
        file = (document.parent / target).resolve() if target else document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_exist(document: Path) -> None:
    for line in commands(document):
        words = shlex.split(line)
        if words[0] == "make":
            targets = [word for word in words[1:] if "=" not in word]
            assert all(re.search(rf"^{re.escape(word)}:", MAKEFILE, re.MULTILINE) for word in targets), line
        elif words[0] == "epochal":
            assert_parses(words[1:], line)
        elif words[0] in ("python", ".venv/bin/python") and words[1].endswith(".py"):
            assert (ROOT / words[1]).exists(), line


def assert_parses(words: list[str], line: str) -> None:
    """Parsed by click itself, and not invoked; names in capitals stand for a value."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and words[0] not in ANY and not words[0].startswith("-"):
        for child in words[0].split("|"):
            assert child in command.list_commands(click.Context(command)), line
        found = command.get_command(click.Context(command), words[0].split("|")[0])
        assert found is not None, line
        command, words = found, words[1:]
    given = [word for word in words if word not in (*ANY, "--help", "-h")]
    context = click.Context(command, ignore_unknown_options=False, allow_extra_args=False)
    try:
        values, left, _ = command.make_parser(context).parse_args(given)
    except click.UsageError as error:
        pytest.fail(f"{line}: {error.format_message()}")
    assert isinstance(command, click.Group) or set(left) <= {VALUE}, line
    needed = [one.name for one in command.params if isinstance(one, click.Argument) and one.required]
    assert not given or not [name for name in needed if not values.get(name or "")], line


@pytest.mark.parametrize("source", SOURCES, ids=name)
def test_commands_in_hints_exist(source: Path) -> None:
    for line in commands_in(source):
        assert_parses(shlex.split(line.partition(" | ")[0])[1:], line)


@pytest.mark.parametrize("path", COMMANDS)
def test_command_is_documented(path: str) -> None:
    assert path in CLI, f"platform/docs/cli.md has no heading `{path}`"
    names = [shown(parameter) for parameter in COMMANDS[path].params]
    assert not [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", CLI[path])]


def test_documented_commands_exist() -> None:
    assert {heading for heading in CLI if heading.startswith("epochal")} == set(COMMANDS)


def test_spec_reference_is_current() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.markdown(), "make docs"


def test_spec_fields_are_described() -> None:
    assert not [path for path, field in reference.fields() if not reference.describe(field)], "these want a docstring"


@pytest.mark.parametrize("decision", DECISIONS, ids=name)
def test_decision_is_numbered_dated_and_one_page(decision: Path) -> None:
    text = decision.read_text(encoding="utf-8")
    number = decision.name[:4]
    assert text.startswith(f"# {number}: ")
    assert re.search(r"^20\d\d-\d\d-\d\d\. (Accepted|Replaced by \d{4})\.", text, re.MULTILINE)
    assert text.count("\n") <= 70
    assert "## What shows it" in text


def test_decisions_are_numbered_without_gaps() -> None:
    assert [path.name[:4] for path in DECISIONS] == [f"{number:04}" for number in range(1, len(DECISIONS) + 1)]
