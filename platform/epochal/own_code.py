"""The user's own code in a process of ours: where in it something happened, and that it does not end the process."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import FrameSummary
from typing import Any, NoReturn

from epochal.errors import CodeError
from epochal.redaction import named

_HINT = "raise an exception instead; what is for a script alone belongs below `if __name__ == '__main__':`"
_PACKAGES = {"site-packages", "dist-packages"}
_PYTHON_AND_OURS = tuple(
    os.path.join(folder, "")  # with a separator at its end
    for folder in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), str(Path(__file__).parent)}
)


def place(error: BaseException) -> str:
    """Where in the user's own code ``error`` was raised: ``nets/wide.py, line 12``; empty where nothing of it ran.

    It is the innermost line that is neither Python's own, nor of an installed package, nor ours.
    """
    frame = _innermost(traceback.extract_tb(error.__traceback__))
    return "" if frame is None else _shown(frame)


def ended(error: BaseException) -> CodeError:
    """What a ``SystemExit`` or ``KeyboardInterrupt`` says that the user's own code has raised."""
    text = named(error)
    return _ended(text, traceback.extract_tb(error.__traceback__))


@contextmanager
def exits_told(tell: Callable[[CodeError], None]) -> Iterator[None]:
    """Within the block ``os._exit`` and ``os.abort`` end the thread that calls them, by ``SystemExit``, and are told.

    Not in forked processes, which end by it. Nor in the main thread where another one entered the block: there it is
    not the user's code that runs.
    """
    process, in_main = os.getpid(), threading.current_thread() is threading.main_thread()

    def instead(name: str, real: Callable[..., NoReturn]) -> Callable[..., NoReturn]:
        def refused(*status: Any) -> NoReturn:
            if os.getpid() != process or (not in_main and threading.current_thread() is threading.main_thread()):
                real(*status)
            call = f"os.{name}({', '.join(map(repr, status))})"
            tell(_ended(call, traceback.extract_stack()))
            raise SystemExit(call)

        return refused

    before = {name: getattr(os, name) for name in ("_exit", "abort")}
    for name, real in before.items():
        setattr(os, name, instead(name, real))
    try:
        yield
    finally:
        for name, real in before.items():
            setattr(os, name, real)


@contextmanager
def not_ended() -> Iterator[None]:
    """Code that would end the process within the block is a ``CodeError`` that names its line, also where it was
    another thread, or where it catches ``SystemExit``.
    """
    told: list[CodeError] = []
    try:
        with exits_told(told.append):
            yield
    except SystemExit as error:
        raise told[0] if told else ended(error) from error
    except Exception as error:
        if not told:
            raise
        raise told[0] from error
    if told:
        raise told[0]


def _ended(by: str, frames: Sequence[FrameSummary]) -> CodeError:
    frame = _innermost(frames)
    where = "" if frame is None else f" ({_shown(frame)}: {frame.line})"
    return CodeError(f"your code ended the interpreter by {by}{where}", _HINT)


def _innermost(frames: Sequence[FrameSummary]) -> FrameSummary | None:
    return next((frame for frame in reversed(frames) if _is_theirs(frame.filename)), None)


def _is_theirs(file: str) -> bool:
    """Whether it may be of the user's own code: ``<frozen ...>`` and ``<string>`` are no files."""
    path = Path(file)
    return path.is_absolute() and not (file.startswith(_PYTHON_AND_OURS) or _PACKAGES & set(path.parts))


def _shown(frame: FrameSummary) -> str:
    """Relative to where it was imported from, which says no more than the user knows."""
    path = Path(frame.filename)
    above = [entry for entry in sys.path if entry and path.is_relative_to(entry)]
    name = path.relative_to(max(above, key=len)) if above else path
    return f"{name}, line {frame.lineno}"
