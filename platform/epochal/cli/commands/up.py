"""`epochal up`: MLflow, the server and an agent on this machine, in the background."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from epochal.cli import render
from epochal.cli.mlflow_pages import first_page
from epochal.cli.options import output_option
from epochal.cli.render import Output
from epochal.errors import UsageError
from epochal.settings import DEFAULT_PROMETHEUS_PORT

if TYPE_CHECKING:
    from epochal.local.service_state import Services

_PORT = click.IntRange(1, 65535)


@click.command("up")
@click.option("--port", type=_PORT, help="The server's port.  [default: 8700]")
@click.option("--mlflow-port", type=_PORT, help="MLflow's port.  [default: 5000]")
@click.option(
    "--warm", type=click.IntRange(0, 64), metavar="N", help="Idle worker processes that the agent keeps ready."
)
@click.option("--cpus", type=click.IntRange(1), metavar="N", help="CPUs that jobs may use.  [default: all]")
@click.option("--monitoring", is_flag=True, help="Start Prometheus too, with the alerts of `dashboards/prometheus`.")
@click.option("--prometheus-port", type=_PORT, help=f"Prometheus's port.  [default: {DEFAULT_PROMETHEUS_PORT}]")
@output_option(Output.TABLE, Output.JSON, Output.YAML)
def command(output: Output, monitoring: bool, prometheus_port: int | None, **options: int | None) -> int:
    """Start MLflow, the server and an agent on this machine, in the background.

    Ends when all of them are healthy. They are watched and started again where one dies, until `epochal down`. Done
    again it says that they run, and where.
    """
    from epochal.local.local_plan import Options
    from epochal.local.services import up
    from epochal.settings import home, tracking_uri

    if prometheus_port is not None and not monitoring:
        raise UsageError("--prometheus-port is for the Prometheus of --monitoring", "give both")
    observed = (prometheus_port or DEFAULT_PROMETHEUS_PORT) if monitoring else None
    came = up(home(), Options(**options, prometheus_port=observed), tracking_uri(), render.message)
    if came.already:
        render.message("the services are up already")
    else:
        render.message(f"up after {came.seconds:.1f} s; `epochal submit FILE --follow` runs the job spec FILE")
    _warn_if_commands_go_elsewhere(came.services.url("server"))
    render.document(_where(came.services) if output is Output.TABLE else came.services.to_dict(), output)
    return 0


def _warn_if_commands_go_elsewhere(here: str) -> None:
    """A variable, or a context that `epochal login` made, goes before these services."""
    from epochal.client.address import find_address
    from epochal.errors import EpochalError

    try:
        found = find_address()
    except EpochalError as error:
        render.warning(error.message)
        return
    if found.server != here:
        render.warning(f"commands go to {found.server} ({found.named_by}); --server {here} has them come here")


def _where(services: Services) -> dict[str, str]:
    from epochal.settings import home

    started = datetime.fromtimestamp(services.started_at).astimezone()
    return {
        "server": services.url("server"),
        "token": str(home().token),
        "mlflow": first_page(str(services.options["mlflow_url"])),
        **({"prometheus": services.url("prometheus")} if services.options.get("prometheus_port") else {}),
        "logs": str(Path(services["server"].log).parent),
        "since": f"{started:%Y-%m-%d %H:%M:%S}",
    }
