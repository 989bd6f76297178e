"""Network and clock: what this machine's settings mean for a gang."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from epochal.doctor.check import Check, fail, ok, warn
from epochal.doctor.hardware import existing
from epochal.errors import some
from epochal.redaction import said
from epochal.urls import is_loopback, without_password

NEW_ENOUGH = 1_767_225_600  # 2026-01-01: no clock that is set right shows an earlier time
DRIFT_SECONDS = 2.0
SLOW_LOOKUP_SECONDS = 1.0
_DECISIVE = (
    "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "MLFLOW_TRACKING_URI", "EPOCHAL_HOME",
)  # fmt: skip


def host_name(name: str, addresses: tuple[str, ...], seconds: float) -> Check:
    """``addresses``: what the host's name resolves to, which took ``seconds``."""
    if not addresses:
        advice = f"add a line `127.0.1.1 {name}` to /etc/hosts: libraries that look up their own host wait or fail"
        return warn("host name", f"{name!r} does not resolve", advice)
    found = f"{name} is {some(list(addresses))}"
    if seconds > SLOW_LOOKUP_SECONDS:
        advice = f"every start waits for that: add the name to /etc/hosts, as in `127.0.1.1 {name}`"
        return warn("host name", f"{found}; looking it up took {seconds:.1f} s", advice)
    if all(is_loopback(address.partition("%")[0]) for address in addresses):
        return ok(
            "host name", f"{found}, loopback; Epochal tells gloo and NCCL the interface of the node's Ray address"
        )
    return ok("host name", found)


def loopback(error: str) -> Check:
    if error:
        advice = "bring the interface lo up, or let the firewall pass it: workers on one machine talk over it"
        return fail("loopback", f"127.0.0.1 does not connect to itself: {error}", advice)
    return ok("loopback", "a port of 127.0.0.1 can be opened and reached")


def ports(first: int, last: int) -> Check:
    """The range the system gives free ports from."""
    found = f"{last - first + 1} for the system to give ({first} to {last})"
    if last - first < 2000:
        return warn("ports", found, "widen net.ipv4.ip_local_port_range: a gang takes some dozen ports a worker")
    return ok("ports", found)


def clock(now: float, steps: tuple[float, float], file_time: float) -> Check:
    """``steps``: seconds by the wall clock and by the monotonic one over the same moment; ``file_time``: of a new file.

    Whether the clock is right cannot be known without a network; whether it can be is checked.
    """
    said = "later than 2025, runs evenly, agrees with the file system (against a time server it was not compared)"
    advice = "set the clock: timedatectl set-ntp true"
    if now < NEW_ENOUGH:
        return fail("clock", f"it says {time.strftime('%Y-%m-%d', time.gmtime(now))}", advice)
    if abs(steps[0] - steps[1]) > 0.5:
        return warn("clock", f"it moved by {steps[0]:.1f} s in {steps[1]:.1f} s", f"it is being set; {advice}")
    if abs(file_time - now) > DRIFT_SECONDS:
        found = f"new files in the home are dated {file_time - now:+.1f} s from now"
        return warn("clock", found, "the file server's clock differs: set both by the same time server")
    return ok("clock", said)


def ray_token(path: Path, mode: int | None) -> Check:
    """A token that Ray's own commands use. ``mode``: the file's permissions; None where there is none."""
    if mode is None:
        return ok("ray token", f"none in {path.parent}; Epochal keeps its own in its home")
    if mode & 0o077:
        return warn("ray token", f"{path} can be read by others ({mode:o})", f"chmod 600 {path}")
    return ok(
        "ray token", f"{path} makes `ray start` ask for a token; Epochal does not use it, but its own in its home"
    )


def variables(environ: Mapping[str, str]) -> Check:
    """Environment variables that change where things go; secrets are named, never shown."""
    harmless = {**environ, "RAY_AUTH_TOKEN": "***"}
    shown = [f"{name}={without_password(harmless[name])}" for name in _DECISIVE if name in environ]
    return ok("environment", "; ".join(shown) or "nothing set that changes where things go")


def look(home: Path, environ: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """The checks of this module, on this machine."""
    yield _measured_host_name()
    yield loopback(_loopback_error())
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
        yield ports(first, last)
    except (OSError, ValueError):
        yield ok("ports", "this system does not say how many it gives")
    yield _measured_clock(existing(home))
    path = Path(os.path.expanduser("~/.ray/auth_token"))  # `Path.home` raises where nobody knows which that is
    yield ray_token(path, path.stat().st_mode & 0o777 if path.exists() else None)
    yield variables(environ)


def _measured_host_name() -> Check:
    name, begun = socket.gethostname(), time.monotonic()
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return host_name(name, (), time.monotonic() - begun)
    addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
    return host_name(name, tuple(addresses), time.monotonic() - begun)


def _loopback_error() -> str:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(2)
            with socket.create_connection(server.getsockname(), timeout=2) as client:
                accepted, _ = server.accept()
                with accepted:
                    client.sendall(b"epochal")
                    return "" if accepted.recv(7) else "what was sent did not arrive"
    except OSError as error:
        return said(error)


def _measured_clock(folder: Path) -> Check:
    wall, steady = time.time(), time.monotonic()
    time.sleep(0.05)
    steps = (time.time() - wall, time.monotonic() - steady)
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"epochal")
            file.flush()
            return clock(time.time(), steps, os.stat(file.name).st_mtime)
    except OSError:
        return clock(time.time(), steps, time.time())  # the check of the home says why
