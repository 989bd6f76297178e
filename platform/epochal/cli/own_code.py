"""The user's own code in a command's process: what it prints is not the command's output, nor its end the command's."""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from epochal.cli import render
from epochal.errors import CodeError, EpochalError, some
from epochal.own_code import ended, not_ended, place
from epochal.redaction import named

if TYPE_CHECKING:
    from epochal.spec.load import LoadedSpec


def check_code(loaded: LoadedSpec) -> None:
    """Tell what is odd about the code that a spec ships.

    Raises:
        CodeError: it cannot be shipped.
    """
    if loaded.spec.code is not None:
        from epochal.engine.code import contents

        has_loaders = loaded.spec.data.loader_workers > 0
        for text in contents(loaded.code_folder, loaded.spec.code.exclude, has_loaders).warnings:
            render.warning(text)


def load(source: str, overrides: Sequence[str]) -> LoadedSpec:
    """One job spec, with all that can be said of it here, and of the code that it ships.

    Raises:
        SpecError, CodeError: it cannot be run.
    """
    from epochal.catalog.index import check
    from epochal.spec.load import load_spec
    from epochal.sweeps.check import check as check_sweep

    loaded = load_spec(source, overrides, (check, check_sweep))
    check_code(loaded)
    return loaded


class _Pressed(KeyboardInterrupt):
    """Ctrl-C, as against code that raises what it would."""


@contextmanager
def own_code(folder: Path | None) -> Iterator[None]:
    """Within the block code from ``folder`` may be imported and run; standard output is that of ``render`` alone.

    Raises:
        CodeError: the code raises, or would end the process; it names the line.
    """
    if folder is not None:
        sys.path.insert(0, str(folder))
    if not faulthandler.is_enabled():
        faulthandler.enable(2)  # names the line where the process crashes
    before = set(threading.enumerate())
    with render.apart(), _told_apart():
        try:
            with not_ended():
                yield
        except (EpochalError, _Pressed):
            raise
        except KeyboardInterrupt as error:
            raise ended(error) from error
        except BaseException as error:  # not all that code raises is an Exception
            if not (where := place(error)):
                raise
            raise CodeError(f"your code failed ({where}): {named(error)}") from error
    if left := [thread.name for thread in threading.enumerate() if thread not in before and not thread.daemon]:
        render.warning(f"your code has left threads running ({some(left)}): the command ends once they have ended")


@contextmanager
def _told_apart() -> Iterator[None]:
    """Within the block Ctrl-C raises ``_Pressed``, where nobody has seen to it otherwise."""

    def press(_number: int, _frame: object) -> None:
        raise _Pressed

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
