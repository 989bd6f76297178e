"""The command line in a pipe."""

from __future__ import annotations

import subprocess
import sys

EPOCHAL = [sys.executable, "-c", "import sys; from epochal.cli.main import main; sys.exit(main())"]


def test_a_reader_that_leaves_early_is_no_error() -> None:
    process = subprocess.Popen([*EPOCHAL, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    process.wait(timeout=60)
    process.stderr.close()
    assert told == ""
