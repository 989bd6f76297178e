"""A private Ray on this machine, started with nothing that a gang does not need.

Measured on 2 cores: ``ray.init()`` takes 4.7 s, this 1.2 to 1.7 s. What goes: the dashboard's process, which is started
and waited for even where ``include_dashboard`` is false (1.2 to 2 s), the autoscaler's monitor and the log monitor
(each a Python process that competes for the cores), a wait for the node's registration in steps of one second, and
listeners on other interfaces than loopback. The way in is ``ray.init`` itself; only its ``Node`` is replaced.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray._private.node as ray_node
from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]

REGISTER_SECONDS = 60.0
LOOPBACK = "127.0.0.1"

ENVIRONMENT = {
    # Idle workers are kept. Beside a worker that a task needs Ray starts others that might be needed, up to this number
    # of idle ones: those would take the cores while a gang starts, and a later gang would get them, who are not warm.
    "RAY_num_workers_soft_limit": "0",
    "RAY_idle_worker_killing_time_threshold_ms": str(10**9),
    # The pool of warm workers starts as many as it wants, and no other.
    "RAY_prestart_worker_first_driver": "0",
    # Ray runs workers at niceness 15 by default, behind everything else on the machine. The training is the work.
    "RAY_worker_niceness": "0",
    # Data loaders and compilers that a killed worker leaves behind go with it.
    "RAY_kill_child_processes_on_worker_exit_with_raylet_subreaper": "true",
    # A placement group that did not fit at the first look is tried again after this, not after up to a second.
    "RAY_gcs_create_placement_group_retry_min_interval_ms": "20",
    "RAY_gcs_create_placement_group_retry_max_interval_ms": "200",
    "RAY_gcs_create_placement_group_retry_multiplier": "1.2",
    # Without a name server torch warns, in every worker, that it cannot look up the host names of its sockets.
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # Nobody collects these on a private Ray.
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class LeanNode(ray_node.Node):
    """Ray's head node without dashboard, monitor and log monitor, on loopback and on ports the system chooses."""

    def __init__(self, ray_params: Any, **options: Any) -> None:
        ray_params.update(
            node_ip_address=LOOPBACK,
            no_monitor=True,
            include_log_monitor=False,
            dashboard_agent_listen_port=0,
        )
        super().__init__(ray_params, **options)

    def start_api_server(self, **_: Any) -> None:
        self._webui_url = ""

    def start_ray_processes(self) -> None:
        super().start_ray_processes()  # type: ignore[no-untyped-call]
        deadline = time.monotonic() + REGISTER_SECONDS
        while not self._registered() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _registered(self) -> bool:
        nodes = self.get_gcs_client().get_all_node_info().values()  # type: ignore[no-untyped-call]
        return any(node.state == GcsNodeInfo.ALIVE for node in nodes)


@contextmanager
def lean_nodes() -> Iterator[None]:
    """Within the ``with`` block ``ray.init`` starts a ``LeanNode``."""
    module: Any = ray_node
    original = module.Node
    module.Node = LeanNode
    try:
        yield
    finally:
        module.Node = original
