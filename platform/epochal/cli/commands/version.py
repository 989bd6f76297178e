"""`epochal version`: the versions of Epochal and of what it stands on."""

from __future__ import annotations

import platform

import click

from epochal import __version__
from epochal.cli import render
from epochal.cli.options import output_option
from epochal.cli.render import Output
from epochal.tracking.software import package_versions

PACKAGES = ("torch", "ray", "mlflow")


@click.command()
@output_option(Output.TABLE, Output.JSON, Output.YAML)
def command(output: Output) -> None:
    """Print the versions of Epochal, Python, torch, Ray and MLflow. None of them is imported."""
    versions: dict[str, str | None] = {"epochal": __version__, "python": platform.python_version()}
    render.document(versions | {name: package_versions().get(name) for name in PACKAGES}, output)
