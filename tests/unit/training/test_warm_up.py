from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import torch

from epochal.training.warm_up import warm_up

SCRIPT = """
import sys, pathlib
from epochal.training.warm_up import warm_up
warm_up()
known = set(sys.modules)
import torch
import training_pieces as pieces
from epochal.tracking.recorder import NullRecorder
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.worker import Worker
fit(pieces.setup(pieces.spec()), Worker(), pathlib.Path(sys.argv[1]), NullRecorder(), NullControl())
own = ("epochal", "training_pieces")
print(sorted(name for name in set(sys.modules) - known if not name.startswith(own)))
assert not torch.distributed.is_initialized() and not torch.cuda.is_initialized()
"""


def test_a_training_has_next_to_nothing_left_to_import(tmp_path: Path) -> None:
    support = Path(__file__).parents[2] / "support"
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path)],
        capture_output=True, text=True, cwd=support, timeout=120, check=True,
    )  # fmt: skip
    late = run.stdout.strip().splitlines()[-1].count("'") // 2
    assert late <= 5, run.stdout


def test_random_numbers_that_a_training_draws_meanwhile_are_its_own() -> None:
    def draws() -> list[float]:
        torch.manual_seed(1)
        return [torch.rand(()).item() for _ in range(50)]

    alone, done = draws(), threading.Event()

    def warm_up_all_the_time() -> None:
        while not done.is_set():
            warm_up()

    thread = threading.Thread(target=warm_up_all_the_time)
    thread.start()
    try:
        assert all(draws() == alone for _ in range(1000))
    finally:
        done.set()
        thread.join()
