"""Start or join Ray."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_IDLE_TERMINATION  # type: ignore[attr-defined]
from ray.exceptions import RpcError

from epochal.engine import process, ray_variables
from epochal.engine.aftermath import watch
from epochal.engine.capacity import Node, nodes_of
from epochal.engine.warm import WarmPool
from epochal.errors import UnreachableError
from epochal.files import write_atomically
from epochal.redaction import said

CONNECT_SECONDS = 5.0

LEFT_OUT_SECONDS = 120.0
"""Nobody is placed for so long on a node that was lost: until Ray, which takes 72 s and more, knows it is dead."""

_PROBE_SECONDS = 1.0
_ALIVE = 0  # GcsNodeInfo.GcsNodeState
_SOCKET_PATH_LIMIT = 107 - len("/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.12345")
"""What is left of the length of a unix socket's path for Ray's temporary folder."""


@dataclass(frozen=True)
class Connection:
    """This process as the driver of a Ray cluster. ``node_id`` is the node that it runs on."""

    address: str
    node_id: str
    warm: WarmPool
    _left_out: dict[str, float] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """The address of this process's node, for the others."""
        return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]

    def nodes(self) -> tuple[Node, ...]:
        """The living nodes, with what they have and what is free of it."""
        state: Any = ray._private.state
        nodes, now = nodes_of(state.nodes(), state.available_resources_per_node()), time.monotonic()
        return tuple(node for node in nodes if self._left_out.get(node.id, now) <= now)

    def leave_out(self, node_id: str) -> None:
        """That node does not answer, though Ray still counts on it: see ``LEFT_OUT_SECONDS``."""
        self._left_out[node_id] = time.monotonic() + LEFT_OUT_SECONDS

    def drain(self, node_id: str) -> bool:
        """Have Ray place nothing more on a node that is to go. False: something is on it after all, and it stays."""
        worker: Any = ray._private.worker.global_worker
        try:
            # With this reason Ray refuses where the node is busy; "preemption", the other one, it never refuses.
            accepted, _ = worker.gcs_client.drain_node(node_id, DRAIN_NODE_REASON_IDLE_TERMINATION, "no work", 0)
        except RpcError as error:
            raise UnreachableError(
                f"Ray cannot drain the node {node_id}: {said(error)}", "it is tried again"
            ) from error
        if accepted:
            self.leave_out(node_id)
        return bool(accepted)

    def lost(self) -> str:
        """What of Ray this process needs does not answer: its raylet or its GCS; empty while both do. Takes no time."""
        if self.raylet_is_gone():
            return "the raylet of this node"
        return "" if _listens(self._gcs) else f"the GCS at {self.address}"

    @cached_property
    def _gcs(self) -> tuple[str, int]:
        """Where it listens, looked up once: where the cluster's DNS is away, nothing of Ray is lost."""
        host, _, port = self.address.rpartition(":")
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0][4]
        return str(found[0]), int(found[1])

    def raylet_is_gone(self) -> bool:
        """Whether nothing is left of this node's part of Ray: its workers die with the raylet."""
        node: Any = ray._private.worker._global_node
        return node is None or not _listens(node.raylet_socket_name)

    def reaches(self, node_id: str) -> bool:
        """Whether that node's system answers at all, on its raylet's port. Takes up to a second, and needs no Ray."""
        # None, where Ray does not know the node: there is nothing to ask, so nothing is said against it.
        return self._knock_at(node_id) in (None, 0, errno.ECONNREFUSED)

    def trouble_at(self, node_id: str) -> str:
        """What is wrong with that node, in words; empty where its raylet answers. Takes up to a second."""
        answer = self._knock_at(node_id)
        if not answer:
            return ""
        return "its Ray has ended" if answer == errno.ECONNREFUSED else "which does not answer"

    def host_of(self, node_id: str) -> str:
        """Its address, also once Ray takes it for dead."""
        node = _node(node_id)
        return node_id if node is None else str(node["NodeManagerAddress"])

    def _knock_at(self, node_id: str) -> int | None:
        node = _node(node_id)
        return None if node is None else _knock((node["NodeManagerAddress"], node["NodeManagerPort"]))

    def keep_warm(self, per_node: int | None) -> None:
        """Keep that many idle processes with torch imported on every node; returns at once. See ``WarmPool.keep``."""
        self.warm.keep(per_node)


def _node(node_id: str) -> Mapping[str, Any] | None:
    nodes: list[Mapping[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return next((one for one in nodes if one["NodeID"] == node_id), None)


def _listens(place: str | tuple[str, int]) -> bool:
    """Whether a server listens on the unix socket, or at the host and port."""
    return _knock(place) == 0


def _knock(place: str | tuple[str, int]) -> int:
    """What becomes of connecting there: 0, or an error's number."""
    family = socket.AF_UNIX if isinstance(place, str) else socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    with socket.socket(family) as probe:
        probe.settimeout(_PROBE_SECONDS)
        return probe.connect_ex(place)


@contextmanager
def connect(
    address: str | None = None,
    *,
    temp_dir: Path | None = None,
    token_path: Path,
    cpus: int | None = None,
    metrics_port: int | None = None,
) -> Iterator[Connection]:
    """Be a Ray driver within the ``with`` block.

    Without ``address`` a private Ray is started and ended again: on loopback, on ports the system chooses, its files
    in a folder below ``temp_dir`` (default: the system's) that is removed. It dies with this *thread*, by SIGKILL
    too, so enter the block in one that lives as long. ``cpus`` overrides the number of CPUs it offers. With
    ``metrics_port`` it tells Prometheus of this node there, for which a process more of Ray's runs.

    With ``address`` (``host:port``) a running cluster is joined. Token authentication is always on: the token is
    that of ``RAY_AUTH_TOKEN`` or ``RAY_AUTH_TOKEN_PATH`` where they are set and a cluster is joined, otherwise the
    file ``token_path``, which is made where it is missing. ``~/.ray`` is neither read nor written.

    Raises:
        UnreachableError: Ray does not start, or the cluster does not answer or refuses the token.
    """
    with _environment(_variables(address, token_path, tells_metrics=metrics_port is not None)):
        if address is not None:
            _join(address)
            with _session() as connection:
                yield connection
            return
        with _short_folder(temp_dir) as folder, watch(folder) as mark, _environment(mark):
            _start(folder, cpus, metrics_port)
            with _session() as connection:
                yield connection


def ensure_token(path: Path) -> Path:
    """The file of the Ray token, made with mode 0600 where it is missing."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        write_atomically(draft, secrets.token_hex(32), 0o600)
        try:
            os.link(draft, path)  # refuses where another process was first
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path


def _variables(address: str | None, token_path: Path, tells_metrics: bool) -> dict[str, str | None]:
    # Without an address `ray.init` would join the cluster that RAY_ADDRESS names.
    variables: dict[str, str | None] = {"RAY_AUTH_MODE": "token", "RAY_ADDRESS": None}
    own_token = address is None or not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if own_token:
        variables |= {"RAY_AUTH_TOKEN": None, "RAY_AUTH_TOKEN_PATH": str(ensure_token(token_path))}
    if address is None:
        variables.update(ray_variables.PRIVATE | (ray_variables.WITH_METRICS if tells_metrics else {}))
    return variables


@contextmanager
def _environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    _apply(variables)
    try:
        yield
    finally:
        _apply(before)


def _apply(variables: Mapping[str, str | None]) -> None:
    raylet: Any = ray._raylet
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    # Ray has read its variables when it was imported, and has kept the token it saw last.
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _short_folder(parent: Path | None) -> Iterator[Path]:
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="ep-", dir=parent))
    if len(str(folder)) > _SOCKET_PATH_LIMIT:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="ep-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, cpus: int | None, metrics_port: int | None) -> None:
    from epochal.engine.local_ray import lean

    # Ray's processes keep what they are started with, and the workers, who are theirs, can read it even where they have
    # taken it out of their own environment.
    withheld = process.withhold_credentials()
    try:
        with lean():
            ray.init(
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                _temp_dir=str(folder),
                _metrics_export_port=metrics_port,
            )
    except (OSError, RuntimeError, TimeoutError, ray.exceptions.RayError) as error:
        hint = f"`epochal doctor` checks ports, memory and shared memory; Ray's logs were in {folder}"
        raise UnreachableError(f"Ray does not start on this machine: {said(error)}", hint) from error
    finally:
        os.environ.update(withheld)


def _join(address: str) -> None:
    services: Any = ray._private.services
    raylet: Any = ray._raylet
    try:
        canonical = services.canonicalize_bootstrap_address(address)
        _answers(address, canonical)
        client = raylet.GcsClient(address=canonical)
        # With a wrong token ray.init retries for minutes, or ends this process; the client says so at once.
        client.get_all_node_info()
        with _found_by_socket(client):
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except ray.exceptions.AuthenticationError as error:
        hint = "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"
        raise UnreachableError(f"the Ray cluster at {address} refuses the token", hint) from error
    except ValueError as error:
        raise UnreachableError(f"{address!r} is no Ray address", "give host:port, such as 10.0.0.5:6379") from error
    except (OSError, RuntimeError, TimeoutError, ray.exceptions.RayError) as error:
        hint = "this machine has to be a node of that cluster (`ray start --address`), with the same Ray and Python"
        raise UnreachableError(f"cannot join the Ray cluster at {address}: {said(error)}", hint) from error


def _answers(address: str, canonical: str) -> None:
    """Ray itself takes half a minute to find that nobody listens, and prints a page.

    ``canonical`` is what Ray makes of ``address``: loopback becomes the node's own address.
    """
    host, _, port = canonical.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        hint = "check the address and that `ray start --head` runs there; leave the address out for a private Ray"
        raise UnreachableError(f"no Ray cluster answers at {address}: {said(error)}", hint) from error


@contextmanager
def _found_by_socket(client: Any) -> Iterator[None]:
    """Ray looks for this machine's node among the processes that it sees, and waits a minute for one. That of another
    container of the same pod is none of them, and one that it sees may belong to another network namespace."""
    services: Any = ray._private.services
    by_process = services.find_node_ids
    services.find_node_ids = lambda: _nodes_here(client.get_all_node_info().values()) or by_process()
    try:
        yield
    finally:
        services.find_node_ids = by_process


def _nodes_here(nodes: Iterable[Any]) -> set[str]:
    """Of those that live, the ids of the nodes with an address of this machine whose raylet listens here."""
    own = {address.address for interface in psutil.net_if_addrs().values() for address in interface}
    alive = (node for node in nodes if node.state == _ALIVE and node.node_manager_address in own)
    return {node.node_id.hex() for node in alive if _listens(node.raylet_socket_name)}


@contextmanager
def _session() -> Iterator[Connection]:
    # Ray prints what its raylets complain about (a worker that was killed) to this process's standard output.
    ray._private.worker._worker_logs_enabled = False
    process.heed_children()
    context = ray.get_runtime_context()
    warm = WarmPool()
    try:
        yield Connection(context.gcs_address, context.get_node_id(), warm)
    finally:
        warm.close()
        ray.shutdown()
