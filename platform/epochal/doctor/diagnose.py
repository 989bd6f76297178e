"""`epochal doctor`'s look at this machine: every check, in the order of a person's questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from epochal.doctor import agents, environment, hardware, installation, ledger
from epochal.doctor.check import Check, fail, ok
from epochal.errors import EpochalError
from epochal.redaction import said
from epochal.settings import Home

Look = Callable[[], Iterator[Check]]


def diagnose(home: Home, tracking_uri: str) -> Iterator[Check]:
    """Every check, each as soon as it is known. Nothing is changed on the machine."""
    looks: tuple[tuple[str, Look], ...] = (
        ("installation", installation.look),
        ("imports and gpus", _imports_and_gpus),
        ("hardware", lambda: _hardware(home)),
        ("environment", lambda: environment.look(home.root)),
        ("services", lambda: _services(home, tracking_uri)),
        ("ledger", lambda: ledger.look(home)),
        ("agents", agents.look),
    )
    for name, look in looks:
        yield from _guarded(name, look)


def _hardware(home: Home) -> Iterator[Check]:
    yield hardware.measured_processors()
    yield hardware.measured_memory()
    yield hardware.measured_shared_memory()
    yield hardware.measured_home(home.root)
    yield from hardware.measured_disks(home.root)
    yield hardware.measured_open_files()
    yield hardware.measured_processes()


def _services(home: Home, tracking_uri: str) -> Iterator[Check]:
    if installation.has_cluster_extra():  # a thin client has no services, nor what their modules import
        from epochal.doctor import services

        yield from services.look(home, tracking_uri)


def _imports_and_gpus() -> Iterator[Check]:
    if not installation.has_cluster_extra():
        yield ok("gpus", "not looked for: this machine runs no jobs")
        return
    loaded = installation.load()
    yield installation.imports(loaded)
    yield hardware.gpus(hardware.measured_gpus(), loaded.cuda)


def _guarded(name: str, look: Look) -> Iterator[Check]:
    """A look that this system does not allow is a finding too, and the others go on."""
    try:
        yield from look()
    except (OSError, EpochalError) as error:
        yield fail(name, f"cannot be looked at: {said(error)}", "run it as the user who runs the jobs")
