"""What the gangs of ``test_gang.py`` run, by import path."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist

from epochal.engine import wire
from epochal.engine.worker import FENCE_POLL_SECONDS, WorkerContext
from epochal.spec.job import Keep
from epochal.training import checkpoint
from epochal.training.checkpoint import Manifest
from epochal.training.control import Progress, Saved
from epochal.training.process_group import join
from epochal.training.saver import Saver, Snapshot


def one_after_another(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    """What each target that is named in ``payload`` gives: the start of a process costs seconds."""
    return {name: globals()[name](its, context) for name, its in payload.items()}


def add_up(payload: dict[str, Any], context: WorkerContext) -> dict[str, Any]:
    """The sum of all ranks plus one, and what the process looks like from inside."""
    with join(context.worker, context.rendezvous, context.store):
        total = torch.tensor([context.worker.rank + 1.0])
        if context.worker.world_size > 1:
            dist.all_reduce(total)
    print(f"rank {context.worker.rank} of {context.worker.world_size}: {total.item()}")
    os.system("echo from a child")
    return {
        "total": total.item(),
        "threads": torch.get_num_threads(),
        "variable": os.environ.get("GREETING"),
        "interface": os.environ.get("GLOO_SOCKET_IFNAME"),
        "payload": payload,
        "local_rank": context.worker.local_rank,
    }


def see_credentials(payload: list[str], context: WorkerContext) -> list[str]:
    """Which of the ``payload`` this worker finds in its environment, or in that of any process it may look into: all of
    its own Ray are among them."""
    seen = [value for value in payload if value in os.environ.values()]
    for process in psutil.Process(os.getppid()).children(recursive=True) + psutil.Process().parents()[:1]:
        with suppress(psutil.Error):
            seen += [value for value in payload if value in str(process.environ())]
    return seen


def look_at_torch(payload: object, context: WorkerContext) -> dict[str, Any]:
    """What torch has made of its variables when it was imported, and OpenMP of its own when it was loaded."""
    return {
        "dynamo": logging.getLogger("torch._dynamo").level,
        "threads": torch.get_num_threads(),
        "pid": os.getpid(),
    }


def use_shipped_code(payload: dict[str, Any], context: WorkerContext) -> int:
    import shipped.nets

    # Data loaders may be processes that start from scratch.
    child = subprocess.run(
        [sys.executable, "-c", "import shipped.nets; print(shipped.nets.SIZE)"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    return int(shipped.nets.SIZE) + int(child.stdout)


def write_on(payload: dict[str, Any], context: WorkerContext) -> tuple[int, int]:
    """The first attempt writes for ever; a later one tells how much is written as it begins, and a while after."""
    path = context.folder / "written"
    with path.open("ab", buffering=0) as file:
        while context.attempt == 1:
            file.write(b".")
            time.sleep(0.001)
    begun = path.stat().st_size
    time.sleep(4 * FENCE_POLL_SECONDS)
    return begun, path.stat().st_size


def step_forever(payload: dict[str, Any], context: WorkerContext) -> str:
    """Steps with a collective each, as training does, until asked to stop."""
    with join(context.worker, context.rendezvous, context.store):
        step = 0
        while True:
            stop = torch.tensor([float(context.control.stop_requested())])
            dist.all_reduce(stop)
            step += 1
            context.control.tick("train", step)
            if context.worker.is_first and step % 10 == 0:
                context.control.report(Progress("train", step, 10**6, 0, 1.0, {"train/loss": 1.0 / step}))
            if stop.item():
                break
            time.sleep(0.01)
    if context.worker.is_first:
        context.control.report(Saved(step, "checkpoints/last", "d1", {}, best=False))
    return "stopped"


def fail_after_a_while(payload: dict[str, Any], context: WorkerContext) -> None:
    """Rank ``payload['rank']`` fails as ``payload['how']`` says; the others step on and see a broken collective."""
    with join(context.worker, context.rendezvous, context.store):
        for step in range(1, 10**6):
            dist.all_reduce(torch.zeros(1))
            context.control.tick("train", step)
            if context.worker.rank == payload["rank"] and step == payload.get("step", 10):
                _fail(payload["how"])
            time.sleep(0.01)


def save_where_a_disk_hangs(payload: dict[str, Any], context: WorkerContext) -> None:
    """The saver of rank ``payload['rank']`` never comes back from writing; the others wait for it."""
    rank = context.worker.rank
    manifest = Manifest(step=5, epoch=0, world_size=context.worker.world_size, strategy="ddp", metrics={}, state={})
    if rank == payload["rank"]:
        checkpoint.write = lambda path, content: threading.Event().wait()
    with join(context.worker, context.rendezvous, context.store):
        context.control.tick("checkpoint", 5)
        saver = Saver(context.folder, context.worker, Keep(), None, context.control.saving)
        saver.start(Snapshot(manifest, {"model.weight": torch.ones(8)}, frozenset(), {}, best=False))
        saver.wait()


def _fail(how: str) -> None:
    if how == "exception":
        raise ValueError("the labels do not match")
    if how == "memory":
        raise MemoryError("8 GiB")
    if how == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "sigstop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "exit":
        os._exit(3)
    if how == "sleep":
        time.sleep(10**6)


def leave_a_child(payload: dict[str, Any], context: WorkerContext) -> None:
    """A process below the worker's, as a data loader is, and no end."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    print(f"child {child.pid}")
    while True:
        context.control.tick("train", 1)
        time.sleep(0.05)


def load_with_processes(payload: dict[str, Any], context: WorkerContext) -> float:
    """A DataLoader with processes and a compiled function, both off the process's main thread."""
    data = torch.arange(64, dtype=torch.float32)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data), batch_size=8, num_workers=2)
    total = sum(batch.sum().item() for (batch,) in loader)
    double = torch.compile(lambda x: x * 2 + 1, backend="aot_eager")
    return total + float(double(torch.ones(1)).item())


class Hostile(bytes):
    """Unpickled it makes the file of that name; sent by Ray as it is, it would be unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.decode()),)


class HostileError(Exception):
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


def attack(payload: str, context: WorkerContext) -> None:
    """Have the agent unpickle what this process sends: an object of its own, or an exception."""

    def encode(event: object) -> Any:
        if payload == "exception":
            raise HostileError(str(context.folder / "attacked"))
        return {"event": Hostile(str(context.folder / "attacked").encode())}

    wire.encode = encode
    time.sleep(10**6)


def flood(payload: dict[str, Any], context: WorkerContext) -> None:
    for index in range(200_000):
        print(index)
    print("done")


def tell_secret(payload: str, context: WorkerContext) -> None:
    """Print it in two pieces and by a child, and fail with it as ``payload`` says."""
    secret = os.environ["GANG_SECRET"]
    print(f"it is {secret[:5]}", end="", flush=True)
    time.sleep(0.05)
    print(secret[5:])
    os.system("echo $GANG_SECRET")
    if payload == "sigkill":
        os.write(2, b"last words")
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        raise KeyError(secret)
    except KeyError as error:
        raise RuntimeError(f"cannot log in as {secret}" + "." * 30_000) from error
