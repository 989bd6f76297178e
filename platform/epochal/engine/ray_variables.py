"""Variables that Ray's processes must be started with; Ray itself is not imported here."""

from __future__ import annotations

SHARED = {
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
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""On every node, whoever starts it."""

KEEPING = ("RAY_num_workers_soft_limit", "RAY_idle_worker_killing_time_threshold_ms")
"""Those without which a raylet ends idle workers."""

PRIVATE = SHARED | {
    # The agent for runtime environments starts behind everything else, which takes minutes on a busy machine. A raylet
    # whose patience ends before that ends itself, and a job that needs the agent gives up by itself. It notices the
    # raylet's end by its standard input, as does what stands in for the dashboard's agent.
    "RAY_agent_register_timeout_ms": str(24 * 3600 * 1000),
    "RAY_py_gcs_connect_timeout_s": "600",
    "RAY_agent_manager_retry_interval_ms": "100",
    "RAY_enable_pipe_based_agent_to_parent_health_check": "true",
    # Nobody collects these on a private Ray.
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
}
"""On the private Ray of one machine (``local_ray``)."""

WITH_METRICS = {"RAY_enable_metrics_collection": "1"}
"""On one that Prometheus reads."""
