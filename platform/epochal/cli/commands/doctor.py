"""`epochal doctor`: is this machine fit to run jobs?"""

from __future__ import annotations

import click

from epochal.cli import render
from epochal.cli.options import output_option
from epochal.cli.render import Output

COLUMNS = ("status", "name", "found")


@click.command()
@output_option(Output.TABLE, Output.JSON, Output.YAML)
def command(output: Output) -> int:
    """Check this machine and say what to do. Exits with 1 where a job would fail.

    Versions, imports, processors, memory, disks, GPUs, network, clock, limits, the services
    of `epochal up`, what earlier commands left behind, and what agents warn of.
    Nothing is changed.
    """
    from epochal.doctor.check import Check, Status
    from epochal.doctor.diagnose import diagnose
    from epochal.settings import home, tracking_uri

    checks: list[Check] = list(diagnose(home(), tracking_uri()))
    render.records([check.to_dict() for check in checks], COLUMNS, output, "checks")
    if output is Output.TABLE:
        for check in checks:
            if check.advice:
                render.message(f"{check.status} {check.name}: {check.advice}")
    return int(any(check.status is Status.FAIL for check in checks))
