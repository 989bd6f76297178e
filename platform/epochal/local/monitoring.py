"""The Prometheus of `epochal up --monitoring`: it reads the server and the private Ray, and knows our alerts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import yaml

from epochal.errors import UsageError
from epochal.files import write_atomically
from epochal.local.service_plan import Plan, Probe, ServicePlan
from epochal.settings import Home
from epochal.urls import LOOPBACK, free_port, http_url

PROGRAM = "prometheus"
INSTALL = "install it (Debian: `apt install prometheus`, macOS: `brew install prometheus`)"
RULES = Path(__file__).with_name("rules.yaml")
_EVERY = "5s"
_OF_RAY = ("aiohttp_cors", "opencensus", "opentelemetry")
"""What Ray's own agent for metrics imports and we do not."""


def require_monitoring() -> None:
    """
    Raises:
        UsageError: something that it needs is not installed.
    """
    if shutil.which(PROGRAM) is None:
        raise UsageError("--monitoring starts Prometheus, which is not installed here", f"{INSTALL}, then try again")
    if missing := [name for name in _OF_RAY if find_spec(name) is None]:
        raise UsageError(f"Ray needs {', '.join(missing)} to tell its metrics", "`pip install 'epochal[monitoring]'`")


def monitored(plan: Plan, home: Home, port: int) -> Plan:
    """The plan with a Prometheus on that port. What it gathers stays in the home; the oldest of it goes beyond 1 GB.

    Raises:
        UsageError: another service has that port.
    """
    url, options = http_url(LOOPBACK, port), {**plan.options, "ray_metrics_port": free_port()}
    if any(service.url == url for service in plan.services):
        raise UsageError(f"Prometheus cannot have port {port}, as another service has", "choose --prometheus-port")
    *others, agent = plan.services
    agent = replace(agent, command=(*agent.command, "--ray-metrics", str(options["ray_metrics_port"])))
    command = (
        PROGRAM,
        f"--config.file={_settings(plan.folder)}",
        f"--storage.tsdb.path={home.root / 'prometheus'}",
        "--storage.tsdb.retention.size=1GB",
        f"--web.listen-address={LOOPBACK}:{port}",
    )
    services = (*others, agent, ServicePlan(PROGRAM, command, Probe(f"{url}/-/ready"), url))
    return replace(plan, services=services, options=options)


def write_settings(plan: Plan) -> None:
    """What the Prometheus of ``plan`` reads."""
    targets = {"epochal": plan.options["port"], "ray": plan.options["ray_metrics_port"]}
    settings = {
        "global": {"scrape_interval": _EVERY, "evaluation_interval": _EVERY},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [f"{LOOPBACK}:{port}"]}]}
            for name, port in targets.items()
        ],
    }
    write_atomically(_settings(plan.folder), yaml.safe_dump(settings, sort_keys=False))


def _settings(folder: Path) -> Path:
    return folder / "prometheus.yaml"
