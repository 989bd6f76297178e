"""A worker on another GPU than the one that Ray has given to it fails loudly. What CUDA and NVML say is made up."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from epochal.engine import gpu
from epochal.errors import DeviceError

NODE = ["GPU-aaaa-1", "GPU-bbbb-2", "GPU-cccc-3"]


@pytest.mark.parametrize(
    ("assigned", "expected"),
    [(["1"], "GPU-bbbb-2"), (["GPU-cccc"], "GPU-cccc"), (["MIG-dddd"], ""), (["7"], ""), ([], "")],
)
def test_what_ray_has_given(assigned: list[str], expected: str) -> None:
    assert gpu.expected_uuid(assigned, NODE) == expected


class Nvml(SimpleNamespace):
    """What ``pynvml`` says on a node with three GPUs, one of them divided."""

    NVML_DEVICE_MIG_ENABLE = 1

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):  # noqa: N801, N818 - the library's name
        pass

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlShutdown(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(NODE)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return NODE[handle]

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:  # noqa: N802
        if handle == 0:
            raise self.NVMLError_NotSupported
        return [int(handle == 2), 0]


def computes_on(monkeypatch: pytest.MonkeyPatch, uuid: str) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    properties: Any = lambda index: SimpleNamespace(uuid=uuid)  # noqa: E731
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)


def test_the_right_one(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    computes_on(monkeypatch, "bbbb-2")
    gpu.check(["1"])
    gpu.check(["GPU-BBBB"])
    assert capfd.readouterr().err == ""


def test_another(monkeypatch: pytest.MonkeyPatch) -> None:
    computes_on(monkeypatch, "aaaa-1")
    with pytest.raises(DeviceError, match="computes on GPU aaaa-1, and Ray has given it bbbb-2"):
        gpu.check(["1"])


def test_one_that_is_divided_is_not_compared_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    computes_on(monkeypatch, "eeee")
    gpu.check(["2"])
    assert "computing on GPU eeee; whether that is ['2'], as Ray says, is not known" in capfd.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_none() -> None:
    with pytest.raises(DeviceError, match="a GPU is reserved for this worker, and torch sees none"):
        gpu.check(["0"])
