"""What this machine has to give: processors, memory, disks, GPUs, limits. Each is measured, then judged."""

from __future__ import annotations

import os
import re
import resource
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epochal.doctor.check import Check, Status, fail, graded, ok, warn
from epochal.errors import some
from epochal.redaction import said
from epochal.units import Bytes

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs", "9p"}
RAY_FULL = 0.95
"""Ray refuses to spill where a disk is fuller than this."""


def processors(usable: int, quota: float | None) -> Check:
    """``usable`` processors by affinity; ``quota`` of processor time by the container, None: all."""
    limited = quota is not None and quota < usable
    found = f"{usable} usable" + (f", limited to {quota:g} by the container" if limited else "")
    available = quota if limited and quota is not None else usable
    return graded("cpus", available, (0, 2), found, "a job of 2 workers needs resources.cpus_per_worker=0.5 here")


def memory(available: int, total: int) -> Check:
    found = f"{Bytes(available).human()} of {Bytes(total).human()} available"
    advice = "end other programs, or run fewer workers: one with torch takes about 0.4 GiB, and its model"
    return graded("memory", available, (GIB / 2, 2 * GIB), found, advice)


def shared_memory(size: int) -> Check:
    """``size`` of /dev/shm in bytes. Containers get 64 MiB by default."""
    advice = (
        "data loaders and Ray's object store live there: docker run --shm-size=2g, or an emptyDir with medium: Memory"
    )
    return graded("shared memory", size, (0, GIB), f"/dev/shm has {Bytes(size).human()}", advice)


def disk(label: str, path: Path, free: int, total: int) -> Check:
    found = f"{Bytes(free).human()} free of {Bytes(total).human()} at {path}"
    advice = "free some space: checkpoints, logs and runs are written there"
    check = graded(f"disk ({label})", free, (GIB, 5 * GIB), found, advice)
    if total and 1 - free / total > RAY_FULL and check.status is Status.OK:
        return warn(check.name, found, f"Ray stops spilling objects to a disk more than {RAY_FULL:.0%} full")
    return check


def file_system(label: str, path: Path, kind: str) -> Check:
    """SQLite's write-ahead log needs shared memory between processes, which network file systems do not give."""
    if kind in NETWORK_FILE_SYSTEMS:
        advice = "put it on a local disk (EPOCHAL_HOME): SQLite databases break on network file systems"
        return warn(f"file system ({label})", f"{path} is on {kind}", advice)
    return ok(f"file system ({label})", f"{kind or 'local'}")


def writable(path: Path, error: str) -> Check:
    if error:
        return fail("home", f"{path} cannot be written: {error}", "set EPOCHAL_HOME to a folder that you can write")
    return ok("home", f"{path} can be written")


def open_files(soft: int, hard: int) -> Check:
    found = f"{soft} open files allowed"
    advice = (
        f"ulimit -n {min(hard, 65536)}" if hard > soft else "raise the hard limit of nofile, such as in limits.conf"
    )
    return graded("open files", soft, (256, 4096), found, advice)


def processes(allowed: int | None) -> Check:
    """``allowed`` processes and threads of the container; None: no limit."""
    if allowed is None:
        return ok("processes", "no limit by the container")
    advice = "Ray and torch start some hundred threads: raise the container's limit (pids)"
    return graded("processes", allowed, (256, 1024), f"{allowed} processes and threads allowed", advice)


@dataclass(frozen=True)
class Gpu:
    name: str
    memory: int
    used: int


@dataclass(frozen=True)
class Gpus:
    """What the NVIDIA driver says. ``driver`` is empty where there is none; ``problem`` is its complaint."""

    driver: str = ""
    cuda: str = ""
    """The newest CUDA version the driver can serve."""
    devices: tuple[Gpu, ...] = ()
    problem: str = ""


def gpus(found: Gpus, torch_cuda: str) -> Check:
    """``torch_cuda``: the CUDA version torch was built for; empty for a CPU build."""
    if found.problem:
        return fail("gpus", found.problem, "reload or reinstall the NVIDIA driver; `nvidia-smi` should list the GPUs")
    if not found.devices:
        return ok("gpus", "none: training uses the processors")
    names = some([f"{gpu.name} {Bytes(gpu.memory).human()}" for gpu in found.devices])
    text = f"{names}, driver {found.driver}"
    if not torch_cuda:
        return warn("gpus", f"{text}; torch is a CPU build", "install a torch with CUDA: see pytorch.org/get-started")
    if _major(torch_cuda) > _major(found.cuda):
        advice = f"update the driver, or install a torch built for CUDA {found.cuda}"
        return fail("gpus", f"{text}, serves CUDA {found.cuda}; torch needs {torch_cuda}", advice)
    busy = [gpu.name for gpu in found.devices if gpu.used > gpu.memory / 4]
    if busy:
        return warn(
            "gpus", f"{text}; in use: {some(busy)}", "another program holds memory there: `nvidia-smi` shows it"
        )
    return ok("gpus", text)


def measured_processors() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _cgroup("cpu.max").partition(" ")
    return processors(usable, int(quota) / int(period) if quota.isdigit() and period else None)


def measured_memory() -> Check:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    shown = re.search(r"MemAvailable:\s+(\d+) kB", _read(Path("/proc/meminfo")))
    available = int(shown[1]) * 1024 if shown else total
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if limit.isdigit() and used.isdigit():
        cached = re.search(r"^inactive_file (\d+)", _cgroup("memory.stat"), re.MULTILINE)
        free = int(limit) - int(used) + (int(cached[1]) if cached else 0)  # given back when it is needed
        total, available = min(total, int(limit)), min(available, free)
    return memory(max(0, available), total)


def measured_shared_memory() -> Check:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return ok("shared memory", "no /dev/shm on this system")
    return shared_memory(shutil.disk_usage(folder).total)


def measured_disks(home: Path) -> Iterator[Check]:
    for label, path in (("home", home), ("temporary", Path(tempfile.gettempdir()))):
        place = existing(path)
        usage = shutil.disk_usage(place)
        yield disk(label, place, usage.free, usage.total)
    yield file_system("home", existing(home), mounted_as(existing(home), _read(Path("/proc/self/mounts"))))


def measured_home(home: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=existing(home)) as file:
            file.write(b"epochal")
    except OSError as error:
        return writable(home, error.strerror or said(error))
    return writable(home, "" if existing(home).is_dir() else "it is a file")


def measured_open_files() -> Check:
    soft, hard = (
        2**20 if limit == resource.RLIM_INFINITY else limit for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    return open_files(soft, hard)


def measured_processes() -> Check:
    allowed = _cgroup("pids.max")
    return processes(int(allowed) if allowed.isdigit() else None)


def measured_gpus() -> Gpus:
    """What nvidia-ml-py says; nothing where there is no driver."""
    try:
        import pynvml
    except ImportError:
        return Gpus()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return Gpus()
    except pynvml.NVMLError as error:
        # The library without the driver is no fault: images with CUDA have it on machines without GPUs.
        loaded = Path("/proc/driver/nvidia").exists()
        return Gpus(problem=f"the NVIDIA driver does not answer: {said(error)}") if loaded else Gpus()
    try:
        number = pynvml.nvmlSystemGetCudaDriverVersion()
        cuda = f"{number // 1000}.{number % 1000 // 10}"
        return Gpus(_text(pynvml.nvmlSystemGetDriverVersion()), cuda, tuple(_devices(pynvml)))
    except pynvml.NVMLError as error:
        return Gpus(problem=f"the NVIDIA driver does not describe its GPUs: {said(error)}")
    finally:
        pynvml.nvmlShutdown()


def mounted_as(path: Path, mounts: str) -> str:
    """The kind of file system ``path`` is on, by the lines of ``/proc/self/mounts``; empty where that is not known.

    >>> mounted_as(Path("/data/runs"), "/dev/sda1 / ext4 rw 0 0\\nserver:/x /data nfs4 rw 0 0")
    'nfs4'
    """
    fields = [line.split() for line in mounts.splitlines()]
    # The kernel writes a space in a path as \040; of two mounts at one place the later covers the earlier.
    octal = re.compile(r"\\(\d{3})")
    places = {octal.sub(lambda found: chr(int(found[1], 8)), one[1]): one[2] for one in fields if len(one) > 2}
    here = path.absolute()
    return next((places[str(parent)] for parent in (here, *here.parents) if str(parent) in places), "")


def existing(path: Path) -> Path:
    """``path``, or the nearest folder above it that there is."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def _devices(nvml: Any) -> Iterator[Gpu]:
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        yield Gpu(_text(nvml.nvmlDeviceGetName(handle)), memory.total, memory.used)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _major(version: str) -> int:
    return int(version.partition(".")[0] or 0)


def _cgroup(name: str) -> str:
    return _read(CGROUP / name)


def _read(path: Path) -> str:
    """A file of the kernel's; empty where this system has none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
