"""The command `epochal`.

Next to nothing is imported, not even click: the help has to appear at once. ``dispatch`` runs the subcommands.
"""

from __future__ import annotations

import os
import sys

from epochal.cli.table import help_text


def main(args: list[str] | None = None) -> int:
    """Run one command and return its exit code; every expected error becomes one message on stderr."""
    arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_is_gone()
    return code


def version_text() -> str:
    from epochal import __version__

    return f"epochal {__version__}"


def _run(arguments: list[str]) -> int:
    completing = "_EPOCHAL_COMPLETE" in os.environ
    if arguments[0] in {"-h", "--help"} and not completing:
        return _printed(help_text())
    if arguments[0] == "--version":
        return _printed(version_text())
    from epochal.cli.dispatch import run

    return run(arguments)


def _printed(content: str) -> int:
    from epochal.cli import render

    render.text(content)
    return 0


def _reader_is_gone() -> int:
    """`epochal ... | head`: what is still buffered has nowhere to go, so give it to /dev/null without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


if __name__ == "__main__":
    sys.exit(main())
