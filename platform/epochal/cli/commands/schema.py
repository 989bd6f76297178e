"""`epochal schema`: the job spec's JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

import click

from epochal.cli import render


@click.command()
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
def command(file: Path | None) -> None:
    """Print the JSON Schema of the job spec (draft 2020-12).

    With --file, editors can use it: the message says how.
    """
    from epochal.files import write_atomically
    from epochal.spec.schema import EDITOR_LINE, schema

    content = json.dumps(schema(), indent=2, ensure_ascii=False)
    if file is None:
        render.text(content)
        return
    write_atomically(file, f"{content}\n")  # an editor must not read half a schema
    render.message(f"wrote {file}; the first line of a job spec can name it:\n{EDITOR_LINE.format(file=file)}")
