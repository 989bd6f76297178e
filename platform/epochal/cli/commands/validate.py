"""`epochal validate`: every problem of job specs, as a compiler prints them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from epochal.cli import render
from epochal.cli.options import output_option, set_option
from epochal.cli.own_code import check_code
from epochal.cli.render import Output
from epochal.errors import UsageError


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@set_option
@output_option(Output.TABLE, Output.JSON, Output.YAML)
def command(files: tuple[str, ...], overrides: tuple[str, ...], output: Output) -> int:
    """Check job specs without running them; - reads standard input.

    Prints every problem with its line, and exits with 2 if there is any.
    """
    if files.count("-") > 1:
        raise UsageError("standard input can be read once")
    results = [_validated(file, overrides, quiet=output is not Output.TABLE) for file in files]
    if output is not Output.TABLE:
        render.document({"specs": results}, output)
    return 0 if all(result["valid"] for result in results) else 2


def _validated(file: str, overrides: tuple[str, ...], quiet: bool) -> dict[str, Any]:
    from epochal.catalog.index import check
    from epochal.errors import CodeError, Problem, SpecError
    from epochal.spec import load_text
    from epochal.spec.source import read
    from epochal.sweeps.check import check as check_sweep

    shown, text = "stdin" if file == "-" else file, b""
    try:
        text = read(file)
        loaded = load_text(text, Path(file).absolute(), overrides, (check, check_sweep), shown)
        try:
            check_code(loaded)
        except CodeError as error:
            raise SpecError(shown, (Problem("code", error.message, hint=error.hint),)) from error
    except SpecError as error:
        if not quiet:
            render.problems(error, text.decode("utf-8-sig", "replace"))
        return {"file": shown, "valid": False, "problems": [render.plain(vars(one)) for one in error.problems]}
    if not quiet:
        render.text(f"{shown}: ok ({loaded.spec.name})")
    return {"file": shown, "valid": True, "name": loaded.spec.name, "problems": []}
