"""`epochal logs`: what a job's workers print."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from epochal.cli import render
from epochal.cli.connection import with_client
from epochal.cli.log_lines import BEGUN_SECONDS, Lines, Pace
from epochal.cli.options import output_option
from epochal.cli.render import Output

if TYPE_CHECKING:
    from epochal.client import Client
    from epochal.client.following import LogChunk


@click.command()
@click.argument("job", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended. Ctrl-C leaves it alone.")
@click.option("--rank", type=click.IntRange(0), help="Only of this rank.")
@click.option("--attempt", type=click.IntRange(1), help="Only of this attempt.")
@click.option(
    "--tail", type=click.IntRange(1), metavar="LINES", help="Of the newest attempt the last lines of each rank."
)
@with_client
@output_option(Output.TABLE, Output.JSON)
def command(
    client: Client, job: str, follow: bool, rank: int | None, attempt: int | None, tail: int | None, output: Output
) -> None:
    """Print what the workers of a job print, each line with its rank; they outlive the cluster.

    With `-o json`, one object a line.
    """
    from epochal.client.following import LogFilter
    from epochal.client.http import MAX_WAIT

    printer = JsonPrinter()
    if output is not Output.JSON:
        printer = (TerminalPrinter if render.is_terminal(sys.stdout) else PlainPrinter)(with_rank=rank is None)
    identity = client.job(job).id if follow else job
    chosen, cursor, silent = LogFilter(rank, attempt, tail), "", True
    try:
        while True:
            page = client.log_page(identity, chosen, cursor, min(MAX_WAIT, printer.patience) if follow else 0.0)
            cursor, silent = page.cursor, silent and not page.chunks
            printer.show(page.chunks, follow)
            if page.done or not (follow or page.chunks):
                break
    finally:
        printer.close()
    if silent:
        render.message("its workers have printed nothing")


class JsonPrinter:
    """Whole lines, each as an object."""

    def __init__(self) -> None:
        self.lines = Lines()

    @property
    def patience(self) -> float:
        """Seconds that an answer may take."""
        return float("inf")

    def show(self, chunks: Iterable[LogChunk], live: bool) -> None:
        """Print ``chunks``. ``live``: there is more to come, and what has begun is shown."""
        for chunk in chunks:
            for line in self.lines.of(chunk):
                self.line(*line)

    def close(self) -> None:
        for line in self.lines.rest():
            self.line(*line)

    def line(self, attempt: int, rank: int, text: str) -> None:
        render.line({"attempt": attempt, "rank": rank, "text": text})


class PlainPrinter(JsonPrinter):
    """For pipes and files: of a line that has not ended now and then what there is of it."""

    def __init__(self, with_rank: bool) -> None:
        super().__init__()
        self._with_rank = with_rank
        self._attempt = 0
        self._pace = Pace()

    @property
    def patience(self) -> float:
        return BEGUN_SECONDS if self.lines.begun() else float("inf")

    def show(self, chunks: Iterable[LogChunk], live: bool) -> None:
        super().show(chunks, live)
        if live:
            for line in self._pace.due(self.lines.begun(BEGUN_SECONDS)):
                self.line(*line)

    def line(self, attempt: int, rank: int, text: str) -> None:
        if attempt != self._attempt:
            if self._attempt:
                render.message(f"--- attempt {attempt}")
            self._attempt = attempt
        render.text(self.text(rank, text))

    def text(self, rank: int, text: str) -> str:
        return f"[rank {rank}] {render.printable(text)}" if self._with_rank else render.printable(text)


class TerminalPrinter(PlainPrinter):
    """Draws the lines that have not ended below the others."""

    def __init__(self, with_rank: bool) -> None:
        super().__init__(with_rank)
        self._below = render.Below()

    @property
    def patience(self) -> float:
        return float("inf")

    def show(self, chunks: Iterable[LogChunk], live: bool) -> None:
        self._below.erase()
        JsonPrinter.show(self, chunks, live)  # not PlainPrinter's: what has begun is drawn
        if live:
            self._below.draw([self.text(rank, text) for _, rank, text in self.lines.begun()])

    def close(self) -> None:
        self._below.erase()
        super().close()
