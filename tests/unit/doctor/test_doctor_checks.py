"""What `epochal doctor` makes of what it measures: each check at its limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from epochal.doctor import environment, hardware, installation, ledger, services
from epochal.doctor.check import Check, Status
from epochal.doctor.hardware import GIB, Gpu, Gpus
from epochal.doctor.installation import Loaded
from epochal.ledger.states import JobState
from epochal.local.service_state import Services, ServiceState, ServiceStatus
from epochal.server.reconciler import Finding

OK, WARN, FAIL = Status
H100 = Gpu("NVIDIA H100", 80 * GIB, 0)
HERE = Path("/here")
NOW = 1_800_000_000.0
SERVER = ServiceStatus("server", ServiceState.READY, "http://127.0.0.1:8700", 7, NOW, NOW)
FINDING = Finding("lease", "digits-1", "agent-1 did not renew its lease")


@pytest.mark.parametrize(
    ("check", "status"),
    [
        (installation.python_version("3.11.7", ">=3.11"), OK),
        (installation.python_version("3.10.14", ">=3.11"), FAIL),
        (installation.packages(None, {"click": ">=8.2"}, {"click": "8.2"}), OK),
        (installation.packages(None, {"click": ">=8.2"}, {"click": "8.1.9"}), FAIL),
        (installation.packages(None, {"click": ">=8.2"}, {}), FAIL),
        (installation.packages("cluster", {"ray": ">=2.50", "torch": ">=2.8"}, {}), WARN),
        (installation.packages("cluster", {"ray": ">=2.50", "torch": ">=2.8"}, {"ray": "2.60"}), FAIL),
        (installation.imports(Loaded({"torch": "", "ray": ""})), OK),
        (installation.imports(Loaded({"torch": "OSError: libcudart.so.13", "ray": ""})), FAIL),
        (hardware.processors(8, None), OK),
        (hardware.processors(8, 1.5), WARN),
        (hardware.processors(1, None), WARN),
        (hardware.memory(2 * GIB, 4 * GIB), OK),
        (hardware.memory(2 * GIB - 1, 4 * GIB), WARN),
        (hardware.memory(GIB // 2 - 1, 4 * GIB), FAIL),
        (hardware.shared_memory(GIB), OK),
        (hardware.shared_memory(64 * 2**20), WARN),
        (hardware.disk("home", HERE, 50 * GIB, 100 * GIB), OK),
        (hardware.disk("home", HERE, 6 * GIB, 200 * GIB), WARN),
        (hardware.disk("home", HERE, 4 * GIB, 10 * GIB), WARN),
        (hardware.disk("home", HERE, GIB - 1, 10 * GIB), FAIL),
        (hardware.file_system("home", HERE, "ext4"), OK),
        (hardware.file_system("home", HERE, ""), OK),
        (hardware.file_system("home", HERE, "nfs4"), WARN),
        (hardware.writable(HERE, ""), OK),
        (hardware.writable(HERE, "Read-only file system"), FAIL),
        (hardware.open_files(65536, 65536), OK),
        (hardware.open_files(1024, 524288), WARN),
        (hardware.open_files(64, 64), FAIL),
        (hardware.processes(None), OK),
        (hardware.processes(512), WARN),
        (hardware.processes(100), FAIL),
        (hardware.gpus(Gpus(), ""), OK),
        (hardware.gpus(Gpus("580.95", "13.0", (H100,)), "12.8"), OK),
        (hardware.gpus(Gpus("580.95", "13.0", (H100,)), ""), WARN),
        (hardware.gpus(Gpus("535.1", "12.2", (H100,)), "13.0"), FAIL),
        (hardware.gpus(Gpus("580.95", "13.0", (Gpu("NVIDIA H100", 80 * GIB, 60 * GIB),)), "13.0"), WARN),
        (hardware.gpus(Gpus(problem="the NVIDIA driver does not answer"), "13.0"), FAIL),
        (environment.host_name("node-1", ("10.0.0.7",), 0), OK),
        (environment.host_name("node-1", ("127.0.1.1", "::1"), 0), OK),
        (environment.host_name("node-1", ("fe80::1%eth0",), 0), OK),
        (environment.host_name("node-1", ("10.0.0.7",), 5), WARN),
        (environment.host_name("node-1", (), 0), WARN),
        (environment.loopback(""), OK),
        (environment.loopback("Connection refused"), FAIL),
        (environment.ports(32768, 60999), OK),
        (environment.ports(60000, 60999), WARN),
        (services.port(5000, "--mlflow-port", None), OK),
        (services.port(5000, "--mlflow-port", "mlflow (pid 7)"), WARN),
        (services.port(5000, "--mlflow-port", ""), WARN),
        (services.supervisor(Services(False), []), OK),
        (services.supervisor(Services(True, services=(SERVER,)), []), OK),
        (services.supervisor(Services(False, services=(SERVER,)), []), WARN),
        (services.supervisor(Services(False, services=(SERVER,)), ["epochal (7)"]), WARN),
        (services.supervisor(Services(False, services=(replace(SERVER, state=ServiceState.STOPPED),)), []), OK),
        (services.service(SERVER, NOW), OK),
        (services.service(replace(SERVER, state=ServiceState.FAILING), NOW), WARN),
        (services.service(replace(SERVER, restarts=2, last_exit=-9), NOW), OK),
        (services.service(replace(SERVER, restarts=3, last_exit=-9), NOW), WARN),
        (services.service(replace(SERVER, restarts=3, last_exit=-9), NOW + 3600), OK),
        (services.reconciler([], True), OK),
        (services.reconciler([FINDING], True), OK),
        (services.reconciler([FINDING], False), WARN),
        (environment.clock(NOW, (0.05, 0.05), NOW + 1), OK),
        (environment.clock(0.0, (0.05, 0.05), 0.0), FAIL),
        (environment.clock(NOW, (3600.0, 0.05), NOW), WARN),
        (environment.clock(NOW, (0.05, 0.05), NOW - 60), WARN),
        (environment.ray_token(HERE, None), OK),
        (environment.ray_token(HERE, 0o600), OK),
        (environment.ray_token(HERE, 0o644), WARN),
        (ledger.lost_leases([]), OK),
        (ledger.lost_leases(["digits-1"]), WARN),
        (ledger.paused(["digits-1"]), OK),
        (ledger.unsent({}), OK),
        (ledger.unsent({"digits-1": ""}), WARN),
        (ledger.unsent({"digits-1": "its run was deleted in MLflow"}), WARN),
        (ledger.refused({}), OK),
        (ledger.refused({"digits-1": ["metric ../bad: no name"]}), WARN),
        (ledger.ledger_clock(None, NOW), OK),
        (ledger.ledger_clock(NOW - 1, NOW), OK),
        (ledger.ledger_clock(NOW + 60, NOW), WARN),
    ],
    ids=lambda value: f"{value.name}: {value.found}" if isinstance(value, Check) else str(value),
)
def test_judgement(check: Check, status: Status) -> None:
    assert check.status is status
    assert check.found
    assert check.advice or check.status is OK, "what is wrong comes with what to do"


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ("2.13.0+cpu", ">=2.8", True),
        ("2.8", ">=2.8.0", True),
        ("2.7.9", ">=2.8", False),
        ("3.0", ">=2.8,<3", False),
        ("2.9rc1", ">=2.8, <3", True),
        ("10.0", ">9", True),
        ("1.2", "!=1.2", False),
        ("1.2", "==1.2.0", True),
        ("1.2", "<=1.1", False),
        ("1.2", "", True),
    ],
)
def test_versions_are_compared_as_numbers(found: str, wanted: str, expected: bool) -> None:
    assert installation.fits(found, wanted) is expected


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/runs/one", "nfs4"), ("/data/a b/c", "xfs"), ("/var", "ext4"), ("/runs", "nfs4"), ("/runsx", "ext4")],
)
def test_file_system_of_a_path(path: str, kind: str) -> None:
    mounts = "/dev/sda1 / ext4 rw 0 0\nserver:/x /runs nfs4 rw 0 0\n/dev/sdb1 /data/a\\040b xfs rw 0 0\n"
    assert hardware.mounted_as(Path(path), mounts) == kind


def test_container_limits_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "cpu.max": "50000 100000", "memory.max": str(GIB), "memory.current": str(900 * 2**20),
        "memory.stat": f"anon 1\ninactive_file {800 * 2**20}\n", "pids.max": "300",
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    assert "limited to 0.5 by the container" in hardware.measured_processors().found
    assert hardware.measured_memory().found == "924 MiB of 1 GiB available"
    assert hardware.measured_processes().status is WARN


def test_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    assert hardware.measured_home(tmp_path / "home").status is FAIL
    assert hardware.measured_home(tmp_path / "new" / "home").status is OK
    assert not (tmp_path / "new").exists()


def test_secrets_are_named_and_not_shown() -> None:
    environ = {"RAY_AUTH_TOKEN": "s3cret", "MLFLOW_TRACKING_URI": "https://ada:s3cret@mlflow:5000/", "HOME": "/root"}
    found = environment.variables(environ).found
    assert found == "RAY_AUTH_TOKEN=***; MLFLOW_TRACKING_URI=https://mlflow:5000/"


def test_many_names_are_cut() -> None:
    several = [f"job-{n}" for n in range(9)]
    assert ledger.unsent(dict.fromkeys(several, "")).found.startswith("not all of job-0, job-1, job-2 and 6 more")


def test_counts_of_jobs() -> None:
    assert ledger.jobs({JobState.QUEUED: 2, JobState.RUNNING: 0, JobState.FAILED: 1}).found == "2 QUEUED, 1 FAILED"
    assert ledger.jobs({}).found == "no jobs yet"


def test_a_user_without_a_folder_of_its_own_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user is a number alone."""

    def unknown(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert "ray token" in {check.name for check in environment.look(tmp_path)}
