"""Metrics of the machine a worker runs on: ``system/<node>/cpu_percent`` and so on, every few seconds from a thread."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import psutil

from epochal.redaction import said
from epochal.tracking.recorder import Recorder

EVERY_SECONDS = 5.0

_logger = logging.getLogger(__name__)


class SystemSampler:
    """Samples this node and gives the values to ``recorder`` at the step that ``step()`` says.

    One sampler a node. Its recorder should be a ``MetricSpool`` with ``repeat=True``: a long step has many samples.
    A rate (bytes a second) is the mean since the sample before.
    """

    def __init__(self, recorder: Recorder, node: str, step: Callable[[], int], every: float = EVERY_SECONDS) -> None:
        self._recorder = recorder
        self._prefix = f"system/{re.sub(r'[^A-Za-z0-9_.-]', '_', node)}"
        self._step = step
        self._every = every
        self._gpus = open_gpus()
        self._before = _counters()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="epochal-system", daemon=True)
        # psutil measures the CPU since the call before; the first one only starts the clock.
        psutil.cpu_percent()

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Take a last sample and close the recorder."""
        self._stopped.set()
        self._thread.join()
        try:
            self._recorder.close()
        except OSError as error:  # no reason for a training to fail
            _logger.warning("the last system metrics of this node are lost: %s", said(error))

    def sample(self) -> dict[str, float]:
        """The values now, by full metric name."""
        before, self._before = self._before, _counters()
        values = {**_memory_and_cpu(), **_rates(before, self._before)}
        for gpu in self._gpus:
            values.update({f"gpu{gpu.index}/{name}": value for name, value in gpu.sample().items()})
        return {f"{self._prefix}/{name}": value for name, value in values.items()}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def _run(self) -> None:
        while True:
            last = self._stopped.wait(self._every)
            try:
                self._recorder.log(self._step(), self.sample())
            except (psutil.Error, OSError) as error:
                _logger.warning("no more system metrics of this node: %s", said(error))
                return
            if last:
                return


def _memory_and_cpu() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {
        "cpu_percent": psutil.cpu_percent(),
        "memory_percent": memory.percent,
        "memory_used_bytes": float(memory.total - memory.available),
        "disk_percent": psutil.disk_usage("/").percent,
    }


@dataclass(frozen=True)
class _Counters:
    time: float
    bytes: dict[str, int]


def _counters() -> _Counters:
    network = psutil.net_io_counters()
    disk = psutil.disk_io_counters()
    totals = {"network_sent": network.bytes_sent, "network_received": network.bytes_recv} if network else {}
    totals |= {"disk_read": disk.read_bytes, "disk_written": disk.write_bytes} if disk else {}
    return _Counters(time.monotonic(), totals)


def _rates(before: _Counters, now: _Counters) -> dict[str, float]:
    seconds = max(now.time - before.time, 1e-3)
    return {
        f"{name}_bytes_per_second": max(0, total - before.bytes.get(name, total)) / seconds
        for name, total in now.bytes.items()
    }


class Gpu:
    """One NVIDIA GPU, seen through the driver's management library: nothing here touches CUDA. ``index`` is NVML's."""

    def __init__(self, nvml: Any, index: int, handle: Any) -> None:
        self._nvml = nvml
        self.index = index
        self._handle = handle

    def describe(self) -> dict[str, Any]:
        """Name and memory, as far as this GPU tells them."""
        return self._told(
            {
                "name": lambda: str(self._nvml.nvmlDeviceGetName(self._handle)),
                "memory_bytes": lambda: int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).total),
            }
        )

    def sample(self) -> dict[str, float]:
        """Utilisation, memory and power; what this GPU does not tell (under MIG, say) is left out."""
        return self._told(
            {
                "utilization_percent": lambda: float(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu),
                "memory_used_bytes": lambda: float(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used),
                "power_watts": lambda: self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000,
            }
        )

    def _told(self, readings: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, read in readings.items():
            with suppress(self._nvml.NVMLError):
                values[name] = read()
        return values


def open_gpus() -> list[Gpu]:
    """The NVIDIA GPUs of this node; none where there is no driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except Exception:  # no library, no driver or no permission: each means that there is nothing to sample
        return []
    found = []
    for index in range(count):
        with suppress(pynvml.NVMLError):  # it has fallen off its bus, or has no power
            found.append(Gpu(pynvml, index, pynvml.nvmlDeviceGetHandleByIndex(index)))
    return found
