"""`epochal cluster`: agents and their Ray clusters on Kubernetes."""

from __future__ import annotations

import click

from epochal.cli import render
from epochal.cli.options import set_option


@click.group("cluster")
def command() -> None:
    """Run an agent and its Ray cluster on Kubernetes, from a cluster spec."""


@command.command("render")
@click.argument("file", metavar="FILE")
@click.option("-n", "--namespace", default="default", show_default=True, help="The namespace of all objects.")
@set_option
def render_command(file: str, namespace: str, overrides: tuple[str, ...]) -> None:
    """Print the Kubernetes objects of the cluster spec FILE, as YAML for `kubectl apply -f -`; nothing is applied.

    KubeRay's operator must be installed there. A `-` reads the spec from standard input.
    """
    import yaml

    from epochal.cluster.load import load_cluster_spec
    from epochal.cluster.manifests import manifests

    objects = manifests(load_cluster_spec(file, overrides), namespace)
    render.text(yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True).rstrip())
