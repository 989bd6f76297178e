"""Metrics of the node."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from epochal.tracking.environment import hardware
from epochal.tracking.metric_spool import MetricSpool, read_lines
from epochal.tracking.recorder import MemoryRecorder
from epochal.tracking.system import SystemSampler, open_gpus


def test_samples_carry_the_global_step(tmp_path: Path) -> None:
    steps = iter(range(10, 1000))
    writer = MetricSpool(tmp_path, "node-1", repeat=True)
    with SystemSampler(writer, "node 1", lambda: next(steps), every=0.05):
        time.sleep(0.3)
    lines = [line.points for line in read_lines(writer.path) if line.points]
    assert len(lines) >= 3
    assert [points[0].step for points in lines] == list(range(10, 10 + len(lines)))
    values = {point.name: point.value for point in lines[-1]}
    assert 0 <= values["system/node_1/cpu_percent"] <= 100
    assert 0 < values["system/node_1/memory_percent"] < 100
    assert values["system/node_1/memory_used_bytes"] > 2**20
    assert values["system/node_1/network_received_bytes_per_second"] >= 0


def test_a_sample_is_cheap() -> None:
    sampler = SystemSampler(MemoryRecorder(), "n", lambda: 0)
    start = time.thread_time()
    for _ in range(20):
        sampler.sample()
    milliseconds = (time.thread_time() - start) / 20 * 1000
    print(f"one sample: {milliseconds:.2f} ms")
    assert milliseconds < 100


def test_gpus_are_sampled_where_there_are_any() -> None:
    sampler = SystemSampler(MemoryRecorder(), "n", lambda: 0)
    found = {name.split("/")[2] for name in sampler.sample() if "gpu" in name}
    assert found == {f"gpu{index}" for index in range(len(open_gpus()))}


class Nvml(SimpleNamespace):
    """What ``pynvml`` says on a node with three GPUs, of which the second has fallen off its bus."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index == 1:
            raise self.NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        return 1000 * handle

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        if handle == 2:
            raise self.NVMLError("GPU is lost")
        return "H200"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:  # noqa: N802
        raise self.NVMLError("not supported")

    nvmlDeviceGetMemoryInfo = nvmlDeviceGetUtilizationRates  # noqa: N815


def test_a_gpu_that_is_lost_costs_no_worker_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    sample = SystemSampler(MemoryRecorder(), "n", lambda: 0).sample()
    assert {name: value for name, value in sample.items() if "gpu" in name} == {
        "system/n/gpu0/power_watts": 0.0,
        "system/n/gpu2/power_watts": 2.0,
    }


def test_what_a_gpu_does_not_tell_of_itself_costs_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    assert hardware.__wrapped__()["gpus"] == [{"name": "H200"}, {}]

    def lost() -> int:
        raise Nvml.NVMLError("driver not loaded")

    monkeypatch.setitem(sys.modules, "pynvml", Nvml(nvmlDeviceGetCount=lost))
    assert hardware.__wrapped__()["gpus"] == []
