"""What `epochal up` starts on this machine, as a plan: MLflow, the server, and an agent with its private Ray."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from epochal.errors import UsageError
from epochal.local.credentials import AGENT, agent_token_path
from epochal.local.monitoring import monitored
from epochal.local.service_plan import Plan, Probe, ServicePlan
from epochal.redaction import said
from epochal.settings import DEFAULT_MLFLOW_PORT, DEFAULT_SERVER_PORT, Home
from epochal.tracking.server import plan_server
from epochal.urls import LOOPBACK, http_url, is_loopback, without_password

DRAIN_SECONDS = 180.0
"""How long the agent may take to save its jobs and hand them back."""

_COMMAND = (sys.executable, "-m", "epochal.cli.main")


@dataclass(frozen=True)
class Options:
    """What `epochal up` can be asked for; None leaves it to the default."""

    port: int | None = None
    mlflow_port: int | None = None
    warm: int | None = None
    cpus: int | None = None
    prometheus_port: int | None = None
    """None: without `--monitoring`."""

    def resolved(self) -> Options:
        port = DEFAULT_SERVER_PORT if self.port is None else self.port
        mlflow_port = DEFAULT_MLFLOW_PORT if self.mlflow_port is None else self.mlflow_port
        return replace(self, port=port, mlflow_port=mlflow_port)

    def differences(self, running: Mapping[str, Any]) -> list[str]:
        """What was asked for, and is otherwise in the services that run: ``["port is 8700, not 9000"]``."""
        unset = {"prometheus_port": "unused, as they run without --monitoring"}
        return [
            f"--{name.replace('_', '-')} is {unset.get(name, 'the default') if had is None else had}, not {value}"
            for name, value, had in ((name, value, running.get(name)) for name, value in asdict(self).items())
            if value not in (None, had)
        ]


def local_plan(home: Home, options: Options, tracking_uri: str) -> Plan:
    """The plan for ``options``, of which the server's and MLflow's port have to be given.

    ``tracking_uri``: where runs are recorded. A tracking server elsewhere is used as it is, and none is started.

    Raises:
        UsageError: two ports are the same, or ``tracking_uri`` is no URL, or nothing that a server can be
            started on here.
    """
    port, mlflow_port = options.port or 0, options.mlflow_port or 0
    services = []
    mlflow_url = tracking_uri
    if not _is_elsewhere(tracking_uri, mlflow_port):
        if port == mlflow_port:
            raise UsageError(f"the server and MLflow cannot share port {port}", "choose others: --port, --mlflow-port")
        mlflow = plan_server(home.tracking_uri if _is_http(tracking_uri) else tracking_uri, LOOPBACK, mlflow_port)
        mlflow_url, probe = mlflow.url, Probe(f"{mlflow.url}/health")
        services.append(ServicePlan("mlflow", mlflow.command, probe, mlflow.url, mlflow.environment))
    services += [_server(home, port, mlflow_url), _agent(home, port, options, mlflow_url)]
    where = {"mlflow_url": without_password(mlflow_url), "tracking_uri": without_password(tracking_uri)}
    plan = Plan(home.services, tuple(services), {**asdict(options), **where})
    return plan if options.prometheus_port is None else monitored(plan, home, options.prometheus_port)


def _is_http(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _is_elsewhere(uri: str, port: int) -> bool:
    """Whether it is a tracking server, and not the very one that is to be started."""
    try:
        parts = urlsplit(uri)
        return _is_http(uri) and not (is_loopback(parts.hostname or "") and parts.port == port)
    except ValueError as error:
        told = f"MLFLOW_TRACKING_URI, {without_password(uri)}, is no URL: {said(error)}"
        raise UsageError(told, "such as http://127.0.0.1:5000, or unset it") from error


def _server(home: Home, port: int, mlflow_url: str) -> ServicePlan:
    url = http_url(LOOPBACK, port)
    options = {
        "--host": LOOPBACK,
        "--port": str(port),
        "--ledger": home.served.ledger_url,
        "--storage": str(home.served.store),
        "--token-file": str(home.token),
    }
    command = (*_COMMAND, "server", "--single-user", *(part for pair in options.items() for part in pair))
    return ServicePlan("server", command, Probe(f"{url}/readyz"), url, _environment(home, mlflow_url))


def _agent(home: Home, port: int, options: Options, mlflow_url: str) -> ServicePlan:
    url = http_url(LOOPBACK, port)
    token_file = str(agent_token_path(home))
    command = [*_COMMAND, "agent", "--server", url, "--token-file", token_file, "--name", AGENT]
    for name, value in (("--warm", options.warm), ("--cpus", options.cpus)):
        command += [name, str(value)] if value is not None else []
    return ServicePlan(
        "agent",
        tuple(command),
        Probe(f"{url}/api/v1/agents", token_file, AGENT),
        environment=_environment(home, mlflow_url),
        needs=("server",),
        stop_seconds=DRAIN_SECONDS,
    )


def _environment(home: Home, mlflow_url: str) -> dict[str, str]:
    """The plan is written to a file: a URI with a password is not in it, but comes from where `up` has it."""
    tracking = {} if without_password(mlflow_url) != mlflow_url else {"MLFLOW_TRACKING_URI": mlflow_url}
    return {"EPOCHAL_HOME": str(home.root), **tracking}
