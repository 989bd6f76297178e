"""A private Ray on this machine, started with nothing that a gang does not need.

Measured on 2 cores: ``ray.init()`` takes 4.5 to 5.3 s, this 0.3 to 0.4 s. What goes: the dashboard's process, which is
started and waited for even where ``include_dashboard`` is false (1.2 to 2 s), its agent, which the raylet waits for
(1.1 s of a core), the autoscaler's monitor and the log monitor (each a Python process that competes for the cores), a
wait for the node's registration in steps of one second, and listeners on other interfaces than loopback. The agent for
runtime environments, which few jobs need (0.5 s of a core), starts in what the workers leave, and nobody else waits for
it. The way in is ``ray.init`` itself; only its ``Node`` is replaced.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray._private.node as ray_node
import ray._private.services as ray_services
import ray._private.utils as ray_utils
import ray._private.worker as ray_worker
from ray._private.ray_constants import PROCESS_TYPE_DASHBOARD_AGENT
from ray._raylet import (  # type: ignore[attr-defined]
    DASHBOARD_AGENT_LISTEN_PORT_NAME,
    METRICS_AGENT_PORT_NAME,
    METRICS_EXPORT_PORT_NAME,
    persist_port,
)
from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]
from ray.util import serialization_addons

REGISTER_SECONDS = 60.0
LOOPBACK = "127.0.0.1"
_NOT_IN_USE = -1
"""As Ray's own agent writes it down for a service that it does not offer."""


class LeanNode(ray_node.Node):
    """Ray's head node without dashboard, monitor and log monitor, on loopback and on ports the system chooses."""

    def __init__(self, ray_params: Any, **options: Any) -> None:
        # Bound, the port is given to nobody else until the agent for runtime environments listens there: that takes it
        # seconds, minutes on a busy machine, and the raylet ends with an agent that finds its port taken.
        self._held_port = socket.socket()
        self._held_port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held_port.bind((LOOPBACK, 0))
        port = self._held_port.getsockname()[1]
        if sys.platform != "linux":
            self._held_port.close()  # only Linux lets the agent bind beside one who does not listen
        ray_params.update(
            node_ip_address=LOOPBACK,
            no_monitor=True,
            include_log_monitor=False,
            dashboard_agent_listen_port=0,
            # Otherwise the raylet waits until this agent has started, and has written down the port that it chose.
            runtime_env_agent_port=port,
        )
        super().__init__(ray_params, **options)

    def kill_all_processes(self, *arguments: Any, **options: Any) -> None:
        super().kill_all_processes(*arguments, **options)
        self._held_port.close()

    def start_api_server(self, **_: Any) -> None:
        self._webui_url = ""

    def start_raylet(self, *arguments: Any, **options: Any) -> None:
        tells_metrics = bool(self.metrics_export_port)
        for service in (METRICS_AGENT_PORT_NAME, METRICS_EXPORT_PORT_NAME, DASHBOARD_AGENT_LISTEN_PORT_NAME):
            if not tells_metrics:
                # In place of the agent, which is not started: the raylet waits until these are written.
                persist_port(self._session_dir, self._node_id, service, _NOT_IN_USE)
        agent_command = _in_the_background if tells_metrics else _agent_command
        with (
            _replaced(ray_services, "_build_python_executable_command_memory_profileable", agent_command),
            # Finds out by importing all of them, 0.3 s, which modules that agent could use.
            _replaced(ray_utils, "get_dashboard_dependency_error", lambda: None),
        ):
            super().start_raylet(*arguments, **options)

    def start_ray_processes(self) -> None:
        super().start_ray_processes()  # type: ignore[no-untyped-call]
        deadline = time.monotonic() + REGISTER_SECONDS
        while not self._registered() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _registered(self) -> bool:
        nodes = self.get_gcs_client().get_all_node_info().values()  # type: ignore[no-untyped-call]
        return any(node.state == GcsNodeInfo.ALIVE for node in nodes)


@contextmanager
def lean() -> Iterator[None]:
    """Within the ``with`` block ``ray.init`` starts a ``LeanNode``, and makes this process a lean driver of it.

    That is one without Ray's serializers for objects of pyarrow and starlette, which no gang sends: where these are
    installed they are imported at the first task otherwise, 0.2 s.
    """
    with _replaced(ray_node, "Node", LeanNode), _replaced(serialization_addons, "apply", lambda context: None):
        yield
        ray_worker.global_worker.get_serialization_context()  # type: ignore[no-untyped-call]


def _agent_command(component: str, *_: Any) -> list[str]:
    """What the raylet starts an agent with. Its script and arguments follow."""
    if component == PROCESS_TYPE_DASHBOARD_AGENT:
        return ["sh", "-c", "exec cat"]  # the raylet needs one, and ends with it
    return _in_the_background()


def _in_the_background(*_: Any) -> list[str]:
    return ["nice", "-n", "19", sys.executable, "-u"]


@contextmanager
def _replaced(owner: Any, name: str, stand_in: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, stand_in)
    try:
        yield
    finally:
        setattr(owner, name, original)
