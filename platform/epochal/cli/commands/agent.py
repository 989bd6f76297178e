"""`epochal agent`: lease jobs from a server and run them on a Ray cluster, in the foreground."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from epochal.cli import render
from epochal.cli.connection import kubernetes_api
from epochal.cli.options import retain_option
from epochal.cli.service_log import log_to_stderr
from epochal.cli.signals import first_asks
from epochal.errors import EpochalError, UsageError
from epochal.settings import Retention

if TYPE_CHECKING:
    from epochal.agent.worker_groups import WorkerGroups

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@click.command("agent")
@click.option("--server", metavar="URL", help="The server to lease from.  [default: as for `epochal submit`]")
@click.option(
    "--token-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="Holds a token of the role agent.  [default: as for `epochal submit`]",
)  # fmt: skip
@click.option("--name", metavar="NAME", help="The agent's name, its own among all agents.  [default: the host's]")
@click.option(
    "--join", "address", metavar="HOST:PORT", envvar="EPOCHAL_RAY_ADDRESS",
    help="The Ray cluster there, of which this machine is a node.  [default: a private one]",
)  # fmt: skip
@click.option(
    "--raycluster", metavar="NAMESPACE/NAME", envvar="EPOCHAL_RAYCLUSTER",
    help="The joined cluster's RayCluster on Kubernetes, whose worker groups grow for jobs that wait.",
)  # fmt: skip
@click.option("--cpus", type=click.IntRange(1), metavar="N", help="CPUs of the private Ray.  [default: all]")
@click.option(
    "--warm", type=click.IntRange(0, 64), metavar="N",
    help="Warm workers a node keeps, 0.35 GiB each.  [default: its CPUs, at most 4]",
)  # fmt: skip
@click.option(
    "--ray-metrics", type=click.IntRange(1, 65535), metavar="PORT",
    help="Have the private Ray tell Prometheus of this machine there, on loopback.",
)  # fmt: skip
@click.option(
    "--heard-file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Touched whenever the server has heard of this agent, while it leases jobs: for a readiness probe.",
)  # fmt: skip
@retain_option("checkpoints", "spools", "logs", "code")
def command(
    name: str | None,
    address: str | None,
    raycluster: str | None,
    retention: Retention,
    **given: Any,
) -> int:
    """Lease jobs from a server and run them, until SIGTERM or Ctrl-C.

    Then every job saves its state and goes back to the queue; a second signal ends at once. Exit code: 0 drained,
    4 another agent has this name now, 5 the server refuses this agent, or Ray was lost: start it again.
    """
    import socket

    from epochal import settings
    from epochal.agent.job_runner import Agent
    from epochal.agent.service import AgentService
    from epochal.client.address import find_address, read_token
    from epochal.client.remote_ledger import RemoteLedger
    from epochal.engine.connection import connect

    cpus, metrics_port = given["cpus"], given["ray_metrics"]
    if address is not None and (cpus or metrics_port):
        option = "--cpus" if cpus else "--ray-metrics"
        raise UsageError(f"{option} is for a private Ray: a cluster that is joined has what its nodes say")
    if raycluster is not None and address is None:
        raise UsageError("--raycluster is the cluster that --join names", "give both, or neither")
    log_to_stderr(_LOG_FORMAT)
    groups = _groups(raycluster) if raycluster is not None else None  # before Ray: what is wrong here is wrong at once
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of each request
    place, found = settings.home().served, find_address(given["server"])
    file = given["token_file"]
    token = read_token(file) if file is not None else found.token
    with (
        RemoteLedger(found.server, token) as source,
        connect(address, token_path=place.ray_token, cpus=cpus, metrics_port=metrics_port) as cluster,
    ):
        agent = Agent(name or socket.gethostname(), source, cluster, place, settings.tracking_uri(), retention)
        service = AgentService(agent, given["warm"], groups, given["heard_file"])
        with first_asks(service.drain, lambda number: os._exit(128 + number)):
            try:
                service.run()
            except EpochalError as error:
                render.error(error)
                sys.stdout.flush()
                sys.stderr.flush()
                logging.shutdown()
                os._exit(error.exit_code)  # Ray, which may be what failed, is not asked for an orderly end
    return 0


def _groups(raycluster: str) -> WorkerGroups:
    namespace, _, name = raycluster.partition("/")
    if not namespace or not name:
        raise UsageError(f"expected NAMESPACE/NAME, such as training/gpu-pool, got {raycluster!r}")
    api = kubernetes_api()  # first: it says what to install where the next line would fail
    from epochal.cluster.worker_groups import RayClusterGroups

    return RayClusterGroups(api, namespace, name)
