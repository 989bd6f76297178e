"""Network namespaces, joined by cables that a test can cut. Needs root, and `ip` (iproute2)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Namespace:
    """A network namespace with one address on the bridge that joins them all."""

    name: str
    address: str

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def cut(self) -> None:
        """Nothing comes in or goes out."""
        ip("-n", self.name, "link", "set", "eth0", "down")

    def mend(self) -> None:
        ip("-n", self.name, "link", "set", "eth0", "up")


@contextmanager
def bridged(prefix: str, count: int) -> Iterator[list[Namespace]]:
    """Namespaces 10.231.7.1 ..., each with a cable to a bridge that is itself in a namespace of its own."""
    switch = f"{prefix}s"
    spaces = [Namespace(f"{prefix}n{number}", f"10.231.7.{number}") for number in range(1, count + 1)]
    with ExitStack() as stack:
        for name in (switch, *(space.name for space in spaces)):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
            # Inside a namespace the host's name resolves to loopback, as it does on many machines.
            etc = Path("/etc/netns") / name
            etc.mkdir(parents=True)
            stack.callback(shutil.rmtree, etc)
            (etc / "hosts").write_text(f"127.0.0.1 localhost {os.uname().nodename}\n")
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for number, space in enumerate(spaces, start=1):
            plug = f"p{number}"
            ip("-n", space.name, "link", "add", "eth0", "type", "veth", "peer", "name", plug, "netns", switch)
            ip("-n", switch, "link", "set", plug, "master", "bridge", "up")
            ip("-n", space.name, "address", "add", f"{space.address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                ip("-n", space.name, "link", "set", link, "up")
        yield spaces


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
