"""Ray Train as a contender: with a cluster of its own, or as a Ray job on a running one."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from contender import BIN, PEERS, WORKERS, Contender, free_port
from steps import wait_for

DEFAULTS: dict[str, str] = {"RAY_AUTH_MODE": "disabled"}
TUNED = DEFAULTS | {
    "BENCHMARK_TUNED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
"""No dashboard, and the controller polls twenty times as often (2 s by default)."""


def start(
    folder: Path, env: Mapping[str, str], settings: Mapping[str, str], trainings: int = 1, **options: object
) -> Contender:
    """A driver that calls ``ray.init`` and trains ``trainings`` times; ``options`` are those of ``peers/digits.py``."""
    return Contender([sys.executable, *_script(trainings, options)], folder, {**env, **settings})


def submitted(contender: Contender, index: int) -> float:
    """When the driver began its ``index``-th training (Unix seconds), once it has."""

    def find() -> float | None:
        moments = re.findall(r"^submitted (\S+)$", contender.log.read_text(errors="replace"), re.MULTILINE)
        return float(moments[index]) if len(moments) > index else None

    return wait_for(f"training {index}", find, contender.alive)


@contextmanager
def cluster(folder: Path, env: Mapping[str, str], settings: Mapping[str, str]) -> Iterator[str]:
    """A running Ray cluster with its job server; gives the address for ``ray job submit``."""
    port = free_port()
    command: list[str | Path] = [
        BIN / "ray", "start", "--head", "--block", "--num-cpus", str(WORKERS), "--temp-dir", folder,
        "--node-ip-address", "127.0.0.1", "--port", "0", "--ray-client-server-port", str(free_port()),
        "--dashboard-host", "127.0.0.1", "--dashboard-port", str(port),
        "--dashboard-agent-listen-port", str(free_port()),
    ]  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    with Contender(command, folder, {**env, **settings}) as head:
        wait_for("a job server", lambda: _answers(f"{address}/api/version"), head.alive)
        yield address


def submit(
    folder: Path, env: Mapping[str, str], settings: Mapping[str, str], address: str, **options: object
) -> Contender:
    """``ray job submit`` of one training."""
    command: list[str | Path] = [
        BIN / "ray",
        "job",
        "submit",
        "--address",
        address,
        "--",
        sys.executable,
        *_script(1, options),
    ]
    return Contender(command, folder, {**env, **settings})


def _script(trainings: int, options: Mapping[str, object]) -> list[str]:
    return [str(PEERS / "ray_train.py"), json.dumps({"options": options, "trainings": trainings})]


def _answers(url: str) -> bool | None:
    with suppress(OSError), urllib.request.urlopen(url, timeout=2):
        return True
    return None
