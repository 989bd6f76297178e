"""The services of `epochal up`, as `epochal doctor` shows them, and what the server's reconciler has to do."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from epochal.doctor.check import Check, ok, warn
from epochal.doctor.ledger import jobs
from epochal.errors import EpochalError, some
from epochal.local.monitoring import INSTALL, PROGRAM
from epochal.local.orphans import find_orphans
from epochal.local.port import holder_of, is_free
from epochal.local.service_state import Services, ServiceState, ServiceStatus, read_services
from epochal.local.services import describe_exit
from epochal.settings import DEFAULT_MLFLOW_PORT, DEFAULT_SERVER_PORT, Home
from epochal.tracking.connection import is_sqlite, sqlite_path

if TYPE_CHECKING:
    from epochal.server.reconciler import Finding

_OFTEN = 3
_LATELY_SECONDS = 600.0


def supervisor(services: Services, orphans: list[str]) -> Check:
    """``orphans``: processes of services whose supervisor is gone."""
    if services.running:
        where = ", ".join(f"{one.name} at {one.url}" for one in services.services if one.url)
        return ok("services", f"up: {where or 'starting, or ending'}")
    if orphans:
        found = f"their supervisor is gone, and orphaned {some(orphans)}"
        return warn("services", found, "`epochal down` ends them; so does the next `epochal up`")
    if any(one.state is not ServiceState.STOPPED for one in services.services):
        found = "their supervisor was killed, or the machine switched off; nothing is left of them"
        return warn("services", found, "`epochal up` starts them again, and jobs go on")
    return ok("services", "none runs; `epochal up` starts them")


def port(number: int, option: str, holder: str | None) -> Check:
    """``holder``: the program that listens there; None: nobody does."""
    name = f"port {number}"
    if holder is None:
        return ok(name, "free for `epochal up`")
    advice = f"end it, or choose another with `epochal up {option}`"
    return warn(name, f"{holder or 'another program'} listens there", advice)


def monitoring(program: str | None) -> Check:
    """``program``: where Prometheus is installed."""
    found = f"{program}: `epochal up --monitoring` starts it" if program else f"not installed; to monitor, {INSTALL}"
    return ok("prometheus", found)


def service(one: ServiceStatus, now: float) -> Check:
    name = f"service ({one.name})"
    ended = f", last: {describe_exit(one.last_exit)}" if one.restarts else ""
    found = f"{one.state}, pid {one.pid}, started again {one.restarts} times{ended}"
    recent = now - one.since < _LATELY_SECONDS
    if one.state is not ServiceState.READY or (one.restarts >= _OFTEN and recent):
        return warn(name, found, f"look at {one.log}")
    return ok(name, found)


def reconciler(findings: list[Finding], tended: bool) -> Check:
    """``tended``: a server is there that does it by itself."""
    deleted = some([f"{one.job_id}: {one.message}" for one in findings if one.kind == "deleted"])
    findings = [one for one in findings if one.kind != "deleted"]
    if not findings:
        agreed = "the ledger, MLflow and what is in storage agree"
        return ok("reconciler", f"{agreed}, but for what somebody deleted: {deleted}" if deleted else agreed)
    found = some([f"{one.job_id or one.kind}: {one.message}" for one in findings])
    if tended:
        return ok("reconciler", f"it is about to reconcile {found}")
    return warn("reconciler", found, "a server does that by itself: `epochal up`")


def look(home: Home, tracking_uri: str) -> Iterator[Check]:
    """The checks of this module. Reads only."""
    services = read_services(home.services)
    orphans = [] if services.running else [f"{one.name()} ({one.pid})" for one in find_orphans(home.services)]
    yield supervisor(services, orphans)
    if services.running:
        now = time.time()
        yield from (service(one, now) for one in services.services)
    else:
        for number, option in ((DEFAULT_SERVER_PORT, "--port"), (DEFAULT_MLFLOW_PORT, "--mlflow-port")):
            yield port(number, option, None if is_free(number) else holder_of(number))
    yield monitoring(shutil.which(PROGRAM))
    if home.served.ledger.exists():
        yield from _look_at_reconciler(home, services, tracking_uri)


def _look_at_reconciler(home: Home, services: Services, tracking_uri: str) -> Iterator[Check]:
    try:
        from epochal.ledger.ledger import Ledger
        from epochal.server.reconciler import Reconciler, Timing
    except ImportError:  # the check of the ledger says so
        return
    uri = services.tracked_at(tracking_uri)
    # Looking into a database that is not there would make it.
    looked_into = None if is_sqlite(uri) and not sqlite_path(uri).exists() else uri
    try:
        with Ledger.open(home.served.ledger_url, upgrade=False) as ledger:
            yield jobs(ledger.counts(), "server")
            findings = Reconciler(ledger, looked_into, timing=Timing(closing=0.0)).plan()
    except EpochalError as error:
        yield warn("reconciler", f"cannot look: {error.message}", error.hint or "look at the check of the ledger")
        return
    yield reconciler(findings, services.running)
