"""What the warm-up imports, and what it must not do in a process that may get a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
    support = Path(__file__).parents[1] / "support"
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path)],
        capture_output=True, text=True, cwd=support, timeout=120, check=True,
    )  # fmt: skip
    late = run.stdout.strip().splitlines()[-1].count("'") // 2
    assert late <= 5, run.stdout


COLD = """
import pathlib, sys
from epochal.spec.job import JobSpec
from epochal.tracking.recorder import MemoryRecorder
from epochal.training.control import NullControl
from epochal.training.fit import fit
from epochal.training.setup import prepare
from epochal.training.worker import Worker
data, model = {"name": "wine"}, {"name": "mlp", "params": {"hidden": [8]}}
spec = JobSpec.model_validate({"version": 1, "name": "cold", "data": data, "model": model, "train": {"epochs": 1}})
folder, recorder = pathlib.Path(sys.argv[1]), MemoryRecorder()
fit(prepare(spec, folder), Worker(), folder, recorder, NullControl())
print("val/accuracy" in recorder.history, "torchmetrics" in sys.modules, "matplotlib" in sys.modules)
"""


def test_the_first_validation_of_a_cold_process_imports_no_plots(tmp_path: Path) -> None:
    """torchmetrics brings matplotlib along, which takes a second, and draws nothing here."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COLD, str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.stdout == "True True False\n", run.stderr


NO_CUDA = """
import os, torch
torch._C._cuda_getDeviceCount = lambda: os._exit(7)
torch._C._cuda_getCurrentRawStream = torch._C._cuda_getDeviceCount
torch.autograd.Variable._execution_engine = None
from epochal.engine.warm_round import MODULES
from epochal.training.warm_up import warm_up
for module in MODULES:
    __import__(module)
warm_up()
print(torch.cuda._is_compiled(), flush=True)
torch.cuda.is_available()
"""


def test_it_neither_asks_cuda_for_its_devices_nor_goes_backward() -> None:
    """As in a torch that was built for CUDA: the process ends by 7 where it is asked, at last by the test itself."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NO_CUDA], capture_output=True, text=True, timeout=120, check=False
    )
    assert (run.stdout, run.returncode) == ("True\n", 7), run.stderr
