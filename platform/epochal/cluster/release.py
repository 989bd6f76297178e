"""The chart's own pods in a namespace: what keeps the server, MLflow and PostgreSQL from being ready.

The chart makes its cluster only once they are, so that a cluster that is not there is often theirs to explain.
"""

from __future__ import annotations

from collections.abc import Iterator

from epochal.cluster.api import Api
from epochal.cluster.kinds import Manifest, path_to
from epochal.cluster.pods import Warnings, newest_warnings, why_not_made, why_not_ready, with_remedy

_OF_THE_CHART = "app.kubernetes.io/name=epochal,app.kubernetes.io/managed-by=Helm"
_COMPONENT = "app.kubernetes.io/component"
_SERVING = {"server", "mlflow", "postgresql"}


def troubles(api: Api, namespace: str) -> Iterator[str]:
    """One for each pod that is not ready, and for each that cannot be made; none where there is no release."""
    pods = api.list(path_to("Pod", namespace), labelSelector=_OF_THE_CHART)
    owners = [
        one
        for kind in ("Deployment", "StatefulSet")
        for one in api.list(path_to(kind, namespace), labelSelector=_OF_THE_CHART)
    ]
    if not owners:
        return
    warnings = newest_warnings(api.list(path_to("Event", namespace), fieldSelector="type=Warning"))
    for pod in pods:
        if pod["metadata"]["labels"].get(_COMPONENT) in _SERVING and (why := why_not_ready(pod, warnings)):
            yield f"{pod['metadata']['name']}: {why}"
    for owner in owners:
        if told := why_not_made(owner) or _why_none(owner, warnings):
            yield f"{owner['metadata']['name']}: its pod cannot be made: {told}"


def _why_none(owner: Manifest, warnings: Warnings) -> str:
    """Of a StatefulSet, whose controller tells of that by events alone; empty once it has made its pod."""
    made = owner.get("status", {}).get("replicas", 0)
    return "" if made else with_remedy(warnings.get(str(owner["metadata"].get("uid")), ""))
