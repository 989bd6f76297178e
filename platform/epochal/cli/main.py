"""The command `epochal`.

Next to nothing is imported, not even click: the help has to appear at once. ``dispatch`` runs the subcommands.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

from epochal.cli.table import STANDARD_OUTPUT, help_text


def main(args: list[str] | None = None) -> int:
    """Run one command and return its exit code; every expected error becomes one message on stderr."""
    arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
    _open_standard_streams()
    failed: OSError | None = None
    try:
        code = _run(arguments)
    except OSError as error:
        failed = error
    try:
        sys.stdout.flush()
    except OSError as error:
        failed = error
        failed.filename = STANDARD_OUTPUT
    if failed is None:
        return code
    if failed.filename == STANDARD_OUTPUT:  # what is still buffered has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(failed, BrokenPipeError):  # `epochal ... | head` has seen enough
        return 1
    from epochal.cli.dispatch import tell_of_file

    return tell_of_file(failed, arguments)


def _run(arguments: list[str]) -> int:
    # The variable is how click asks for completions, with the words that were typed so far.
    wants_help = arguments[0] in {"-h", "--help"} and "_EPOCHAL_COMPLETE" not in os.environ
    if wants_help or arguments[0] == "--version":
        from epochal import __version__
        from epochal.cli import render

        render.text(help_text() if wants_help else f"epochal {__version__}")
        return 0
    from epochal.cli.dispatch import run

    return run(arguments)


def _open_standard_streams() -> None:
    """Of those that are closed (`>&-`) the next file would get the number: what libraries print would land in it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.open(os.devnull, os.O_RDONLY), "w")  # noqa: SIM115 - to write to it is an error
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text


if __name__ == "__main__":
    sys.exit(main())
