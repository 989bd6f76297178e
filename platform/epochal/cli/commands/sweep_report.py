"""`epochal sweep report`: what a sweep has found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from epochal.cli import render
from epochal.cli.connection import with_sweep
from epochal.cli.options import output_option
from epochal.cli.render import Output
from epochal.errors import ConflictError, UsageError
from epochal.files import write_atomically

if TYPE_CHECKING:
    from epochal.client.sweeps import Sweeps

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("report")
@click.argument("sweep", metavar="SWEEP")
@click.option("--html", type=_FILE, metavar="FILE", help="Write the whole report as one HTML page.")
@click.option("--png", type=_FILE, metavar="FILE", help="Write its pictures.")
@with_sweep
@output_option(Output.TABLE, Output.JSON, Output.YAML)
def command(client: Sweeps, sweep: str, html: Path | None, png: Path | None, output: Output) -> None:
    """Tell what a sweep has found: its best trials, its budget, which parameters matter, and what its lead is worth."""
    from epochal.spec.job import JobSpec
    from epochal.sweeps.finding import Finding, from_record
    from epochal.sweeps.report import html as html_of
    from epochal.sweeps.report import summary

    job = client.job(sweep)
    spec = JobSpec.from_stored(dict(job.spec))
    if spec.sweep is None:
        raise ConflictError(f"{job.id} is no sweep", "its spec has no `sweep` block")
    found = Finding.of(spec, [from_record(record.to_dict()) for record in client.trials(job.id)])
    if html:
        write_atomically(html, html_of(found, job.id))
        render.message(f"written to {html}")
    if png:
        try:
            from epochal.sweeps.report_png import png as png_of

            drawn = png_of(found)
        except ImportError:
            raise UsageError("a PNG takes matplotlib", "`pip install epochal[cluster]`, or use --html") from None
        write_atomically(png, drawn)
        render.message(f"written to {png}")
    told = summary(found, job.id)
    if output is not Output.TABLE:
        render.document(told, output)
        return
    best, important, repeat = told.pop("best"), told.pop("importance"), told.pop("repeat")
    render.document(told)
    for rows, title in ((best, "best trials"), (important, "parameters")):
        if rows:
            render.text("")
            render.records(rows, list(dict.fromkeys(name for row in rows for name in row)), title=title)
    for typed in repeat:
        render.message(f"to know what the lead is worth: `{typed}`")
