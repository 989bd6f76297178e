"""`epochal cluster`: agents and their Ray clusters on Kubernetes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from epochal.cli import render
from epochal.cli.connection import kubernetes_api
from epochal.cli.options import Command, duration, output_option, set_option
from epochal.cli.render import Output
from epochal.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from epochal.cluster.api import Api
    from epochal.cluster.kinds import Manifest
    from epochal.cluster.spec import ClusterSpec
    from epochal.cluster.status import ClusterStatus


def _kubernetes(command: Command) -> Command:
    """The command gets ``kube_context`` and ``namespace``, as ``_api`` takes them."""
    named = click.option(
        "--kube-context", metavar="NAME", help="A context of the kubeconfig.  [default: the current one]"
    )
    at = click.option("-n", "--namespace", metavar="NAME", help="Where the cluster is.  [default: the context's]")
    return at(named(command))


def _api(kube_context: str | None, namespace: str | None) -> tuple[Api, str]:
    api = kubernetes_api(kube_context)
    return api, namespace or api.namespace


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
    from epochal.cluster.load import load_cluster_spec
    from epochal.cluster.manifests import manifests

    _show_objects(manifests(load_cluster_spec(file, overrides), namespace), Output.YAML)


@command.command("apply")
@click.argument("file", metavar="FILE")
@set_option
@click.option(
    "--dry-run", type=click.Choice(["client", "server"]),
    help="Change nothing: print the objects, or have the server check them too.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Take over fields, and a cluster, that are somebody else's.")
@click.option("--prune", is_flag=True, help="First delete the other clusters with the same `part_of`.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until every pod is ready.")
@click.option(
    "--timeout", metavar="DURATION", default="10m", show_default=True, callback=duration,
    help="How long to wait.",
)  # fmt: skip
@_kubernetes
@output_option(Output.TABLE, Output.JSON, Output.YAML)
def apply_command(file: str, overrides: tuple[str, ...], output: Output, **how: Any) -> None:
    """Make the cluster of the cluster spec FILE, or change it to that; wait until it runs.

    How many pods a group has stays as the agent has set it, within `min` and `max`. A changed image or group makes
    every pod of Ray anew: jobs go on from their checkpoints. A `-` reads the spec from standard input. Exit code: 2 the
    spec is wrong, 4 somebody else has set fields of it, 5 Kubernetes does not answer or refuses, or it is not ready in
    time.
    """
    from epochal.cluster.load import load_cluster_spec
    from epochal.cluster.manifests import manifests

    spec = load_cluster_spec(file, overrides)
    if how["prune"] and spec.part_of is None:
        raise UsageError("--prune goes by `part_of`, and the spec has none", "add it, or leave --prune out")
    if how["dry_run"] == "client":
        _show_objects(manifests(spec, how["namespace"] or "default"), Output.YAML if output is Output.TABLE else output)
        return
    # First, here and below: it says what to install where the modules of `cluster` could not be imported.
    api, namespace = _api(how["kube_context"], how["namespace"])
    from epochal.cluster.apply import apply
    from epochal.cluster.readiness import wait_until_ready

    is_dry, rows, objects = how["dry_run"] == "server", [], manifests(spec, namespace)
    if how["prune"]:
        _prune(api, spec, objects, how["force"], is_dry)
    for one in apply(api, objects, force=how["force"], dry_run=is_dry):
        rows.append(one.to_dict())
        if output is Output.TABLE:
            render.message(f"{one.kind} {one.name} {'would be ' if is_dry else 'is '}{one.what}")
    if is_dry or not how["wait"]:
        if output is not Output.TABLE:
            render.records(rows, ["kind", "name", "what"], output)
        return
    status = wait_until_ready(api, namespace, spec.name, how["timeout"], render.message)
    _show_status(status, output)


def _prune(api: Api, spec: ClusterSpec, objects: Sequence[Manifest], force: bool, is_dry: bool) -> None:
    from epochal.cluster.apply import apply
    from epochal.cluster.delete import parts_of

    namespace = objects[0]["metadata"]["namespace"]
    others = [one for one in parts_of(api, namespace, spec.part_of or "") if one != spec.name]
    if others and not is_dry:  # what is refused is refused now: once the others have gone there would be none at all
        try:
            list(apply(api, objects, force=force, dry_run=True))
        except UsageError as error:
            if "dry run" not in error.message:  # which some webhooks do not know
                raise
    for other in others:
        if is_dry:
            render.message(f"the cluster {other} would be deleted")
        else:
            _delete(api, namespace, other)


@command.command("status")
@click.argument("name", metavar="[NAME]", required=False)
@_kubernetes
@output_option()
def status_command(name: str | None, kube_context: str | None, namespace: str | None, output: Output) -> int:
    """Show the pods of the cluster NAME, and why those that are missing are; without a NAME of each in the namespace.

    Where the chart's server, MLflow or PostgreSQL is not ready, which its cluster waits for, it warns of that and says
    why. Exit code: 0 every pod of a cluster that is asked for is ready, 5 one is not.
    """
    api, where = _api(kube_context, namespace)
    from epochal.cluster.release import troubles
    from epochal.cluster.status import names, read, status_of

    for text in troubles(api, where):
        render.warning(text)
    found = [status_of(read(api, where, one)) for one in ([name] if name else names(api, where))]
    if name is None:
        rows = [one.to_dict() for one in found]
        for row, one in zip(rows, found, strict=True):
            row["waits"] = "; ".join(one.waits)
        render.records(rows, ["name", "ready", "waits"], output, f"clusters in the namespace {where}")
    else:
        _show_status(found[0], output)
    return 0 if all(one.is_ready for one in found) else 5


@command.command("scale")
@click.argument("name", metavar="NAME")
@click.argument("sizes", metavar="GROUP=COUNT...", nargs=-1, required=True)
@_kubernetes
def scale_command(name: str, sizes: tuple[str, ...], kube_context: str | None, namespace: str | None) -> None:
    """Set how many pods worker groups of the cluster NAME have now, within the `min` and `max` of its spec.

    The agent goes on from there: it adds pods for jobs that wait, and removes those without work after the group's
    `idle`. Where a group gets fewer, KubeRay picks those that go, and a job on one goes on from its checkpoint.
    """
    wanted = dict(map(_size, sizes))
    if len(wanted) < len(sizes):
        raise UsageError(f"expected each group once, got {' '.join(sizes)}")
    api, where = _api(kube_context, namespace)
    from epochal.cluster.scale import scale
    from epochal.cluster.status import read, status_of

    seen = read(api, where, name)
    before = {part.name: part.asked for part in status_of(seen).parts}
    scale(api, seen.ray_cluster, wanted, {})
    for group, count in wanted.items():
        render.message(f"group {group}: {before[f'group {group}']} pods before, {count} now")


@command.command("delete")
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--part-of", metavar="VALUE", help="Instead of a NAME: all clusters whose spec has this `part_of`.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_kubernetes
def delete_command(
    name: str | None, part_of: str | None, yes: bool, kube_context: str | None, namespace: str | None
) -> None:
    """Delete the cluster NAME: its agent, which first hands its jobs back to the queue, then Ray and the rest.

    The storage, the Secrets and the server stay. Exit code: 3 there is none.
    """
    if (name is None) == (part_of is None):
        raise UsageError("expected a NAME, or --part-of and no name")
    api, where = _api(kube_context, namespace)
    from epochal.cluster.delete import parts_of
    from epochal.cluster.status import names, read, status_of

    found = [name] if name is not None else list(parts_of(api, where, part_of or ""))
    if not found:
        raise NotFoundError("cluster", f"part of {part_of}", names(api, where))
    for one in found:
        missing: NotFoundError | None = None
        counted = "its Ray is gone already"
        try:
            counted = ", ".join(f"{part.name} {part.ready}" for part in status_of(read(api, where, one)).parts)
        except NotFoundError as error:
            missing = error
        if not yes:
            question = f"Delete the cluster {one} in the namespace {where} of {api.server} ({counted})?"
            click.confirm(question, abort=True, err=True)
        if not _delete(api, where, one) and missing is not None:
            raise missing


def _delete(api: Api, namespace: str, name: str) -> bool:
    """Whether anything of it was there."""
    from epochal.cluster.delete import delete

    found = False
    for kind, one in delete(api, namespace, name, render.message):
        render.message(f"{kind} {one} is deleted")
        found = True
    return found


def _show_objects(objects: list[dict[str, Any]], output: Output) -> None:
    if output is Output.JSON:
        render.document({"apiVersion": "v1", "kind": "List", "items": objects}, output)
        return
    import yaml

    render.text(yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True).rstrip())


def _show_status(status: ClusterStatus, output: Output) -> None:
    if output is not Output.TABLE:
        render.document(status.to_dict(), output)
        return
    rows = [{"part": one.name, "ready": one.ready, "asked": one.asked, "most": one.most} for one in status.parts]
    render.records(rows, ["part", "ready", "asked", "most"], output, f"pods of {status.name}")
    for text in (*status.waits, *(f"note: {note}" for note in status.notes)):
        render.message(text)


def _size(text: str) -> tuple[str, int]:
    group, _, count = text.partition("=")
    if not group or not count.isdecimal():
        raise UsageError(f"expected GROUP=COUNT, such as gpu=2, got {text!r}")
    return group, int(count)
