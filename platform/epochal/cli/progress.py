"""How a running job looks on a terminal: one live bar, or plain lines where nobody is looking."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from epochal.agent.observer import SilentObserver
from epochal.cli import render
from epochal.cli.log_lines import Pace
from epochal.sweeps.trials import TrialState

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from epochal.agent.sweep_progress import SweepProgress
    from epochal.ledger.values import Job
    from epochal.sweeps.trials import Trial
    from epochal.training.control import Progress

_SHOWN = 3
"""Metrics shown beside the loss."""

_LEADERS = 8
"""Trials of a sweep that are shown while it runs."""

_WIDEST = 1000
_SHOWN_RANKS = 8
"""Characters shown of a line that a worker has begun, and of how many workers."""

_DOING = {"validate": "validating", "checkpoint": "saving", "export": "saving the model"}
"""What is said of the phases that are not training."""


def display(live: bool, quiet: bool) -> QuietDisplay:
    """The display for a terminal (``live``), for a pipe or log file, or for nobody (``quiet``: notices only)."""
    if quiet:
        return QuietDisplay()
    return LiveDisplay() if live else PlainDisplay()


class QuietDisplay(SilentObserver):
    """Notices alone. Every display is entered before the job starts and left after it has ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def notice(self, text: str) -> None:
        render.message(text)


class PlainDisplay(QuietDisplay):
    """A line with the time for each change of state, and for progress every ten seconds and at the end."""

    def __init__(self, every: float = 10.0) -> None:
        self._every = every
        self._told_state = ""
        self._told_step = -1
        self._next_line = 0.0
        self._rate = Rate()
        self._paces: dict[int, Pace] = {}

    def state(self, job: Job) -> None:
        if job.state != self._told_state:
            self._told_state = job.state
            self._say(f"{job.id} {job.state.value}")

    def progress(self, progress: Progress) -> None:
        self._rate.update(progress)
        ended = progress.step == progress.total_steps
        if progress.step == self._told_step or (time.monotonic() < self._next_line and not ended):
            return
        self._told_step, self._next_line = progress.step, time.monotonic() + self._every
        told = (
            f"epoch {progress.epoch}/{progress.epochs:g}" if progress.epochs else "",
            f"step {progress.step}/{progress.total_steps}",
            *described(progress),
            self._rate.eta(progress),
        )
        self._say("  ".join(filter(None, told)))

    def sweep(self, progress: SweepProgress) -> None:
        if progress.done == self._told_step or (time.monotonic() < self._next_line and progress.done < progress.wanted):
            return
        self._told_step, self._next_line = progress.done, time.monotonic() + self._every
        told = ""
        if (best := progress.best) is not None:
            value = f"{progress.objective.metric} {best.curve[-1].value:.4g}"
            told = f"  best: trial {best.number}: {value}  {_point(best)}"
        self._say(f"trials {progress.done}/{progress.wanted}  {_counts(progress)}{told}")

    def log(self, rank: int, text: str, begun: str = "") -> None:
        for line in text.splitlines():
            render.message(f"[rank {rank}] {line}")
        for _, _, line in self._paces.setdefault(rank, Pace()).due([(0, rank, begun)] if begun else []):
            render.message(f"[rank {rank}] {line}")

    def _say(self, text: str) -> None:
        render.message(f"{time.strftime('%H:%M:%S')} {text}")


class LiveDisplay(QuietDisplay):
    """One bar: epoch, step, loss, metrics, samples a second, time left; above it the lines that workers have begun."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._begun: dict[int, str] = {}
        self._sweep: SweepProgress | None = None
        self._rate = Rate()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[metrics]}", markup=False),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("starting", total=1, metrics="")
        self._live = Live(console=self._bar.console, get_renderable=self._rows, transient=True, refresh_per_second=10)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def state(self, job: Job) -> None:
        self._update(description="recording" if job.state.is_terminal else job.state.value.lower())

    def progress(self, progress: Progress) -> None:
        self._rate.update(progress)
        self._update(
            description=f"epoch {progress.epoch}/{progress.epochs:g}" if progress.epochs else progress.phase,
            completed=progress.step,
            total=progress.total_steps,
            metrics="  ".join([*described(progress), self._rate.eta(progress)]),
        )

    def sweep(self, progress: SweepProgress) -> None:
        self._sweep = progress
        self._update(description="trials", completed=progress.done, total=progress.wanted, metrics=_counts(progress))

    def log(self, rank: int, text: str, begun: str = "") -> None:
        for line in text.splitlines():
            self._print(f"[rank {rank}] {line}")
        # Another dict: rich's thread may be drawing this one.
        self._begun = {**self._begun, rank: render.printable(begun[:_WIDEST])}

    def notice(self, text: str) -> None:
        self._print(text)

    def _rows(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        begun = sorted((rank, text) for rank, text in self._begun.items() if text)
        rows: list[RenderableType] = [
            Text(f"[rank {rank}] {text}", no_wrap=True, overflow="ellipsis") for rank, text in begun[:_SHOWN_RANKS]
        ]
        if len(begun) > _SHOWN_RANKS:
            rows.append(Text(f"... and {len(begun) - _SHOWN_RANKS:,} more ranks"))
        if self._sweep is not None:
            rows += _leaders(self._sweep, self._bar.console.width)
        return Group(*rows, self._bar)

    def _print(self, text: str) -> None:
        # Rich draws `:100:`, as in a time of day, as a picture otherwise.
        self._bar.console.print(render.printable(text), markup=False, highlight=False, emoji=False)

    def _update(self, **changes: object) -> None:
        self._bar.update(self._task, **changes)  # type: ignore[arg-type]


def _counts(progress: SweepProgress) -> str:
    states = (TrialState.RUNNING, TrialState.PAUSED, TrialState.STOPPED, TrialState.FAILED)
    counts = ((progress.count(state), state.value.lower()) for state in states)
    return "  ".join(f"{count} {name}" for count, name in counts if count)


def _point(trial: Trial) -> str:
    return "  ".join(f"{path} {_value(value)}" for path, value in trial.point.items())


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _leaders(progress: SweepProgress, room: int) -> Iterator[RenderableType]:
    """The best trials so far, once there are any."""
    from epochal.cli.sweep_view import columns
    from epochal.cli.terminal_table import drawn

    if not (leaders := progress.leaders(_LEADERS)):
        return
    names = columns({path: None for trial in leaders for path in trial.point})
    shown = {
        "trial": [str(trial.number) for trial in leaders],
        "state": [trial.state.value for trial in leaders],
        "length": [f"{trial.length:g}" for trial in leaders],
        progress.objective.metric: [f"{trial.curve[-1].value:.4g}" for trial in leaders],
        **{name: [_value(trial.point.get(path, "-")) for trial in leaders] for path, name in names.items()},
    }
    headed = {name: [name.replace("_", " "), *cells] for name, cells in shown.items()}
    table, left_out = drawn(headed, room, spare=reversed(names.values()))
    yield table
    if left_out:
        yield f"no room for {', '.join(left_out)}"


class Rate:
    """Time left, from the steps of this attempt (a resumed one does not start at step 0)."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None
        self._now = 0.0

    def update(self, progress: Progress) -> None:
        self._now = time.monotonic()
        if self._start is None or progress.step < self._start[1]:
            self._start = (self._now, progress.step)

    def eta(self, progress: Progress) -> str:
        if self._start is None or progress.step <= self._start[1]:
            return ""
        seconds = (self._now - self._start[0]) / (progress.step - self._start[1])
        left = round(seconds * (progress.total_steps - progress.step))
        return f"ETA {left // 60}:{left % 60:02d}"


def described(progress: Progress) -> list[str]:
    """Loss, the newest validation metrics and throughput, as ``name value``."""
    metrics = progress.metrics
    validation = [name for name in metrics if name.startswith("val/")]
    names = ["train/loss", *validation[:_SHOWN]]
    shown = [f"{name} {metrics[name]:.4g}" for name in names if name in metrics]
    if len(validation) > _SHOWN:
        shown.append(f"+{len(validation) - _SHOWN} val/")
    if "perf/samples_per_second" in metrics:
        shown.append(f"{metrics['perf/samples_per_second']:,.0f} samples/s")
    if progress.phase in _DOING:
        shown.append(_DOING[progress.phase])
    return shown


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; what is given is called with how many more of the ``total`` are done."""
    if not render.is_terminal(sys.stderr):
        yield lambda more: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)
