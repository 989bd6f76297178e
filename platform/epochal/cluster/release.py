"""The chart's own pods in a namespace: what keeps the server, MLflow and PostgreSQL from being ready.

The chart makes its cluster only once they are, so that a cluster that is not there is often theirs to explain.
"""

from __future__ import annotations

from collections.abc import Iterator

from epochal.cluster.api import Api
from epochal.cluster.kinds import path_to
from epochal.cluster.pods import newest_warnings, why_not_made, why_not_ready

_OF_THE_CHART = "app.kubernetes.io/name=epochal,app.kubernetes.io/managed-by=Helm"
_COMPONENT = "app.kubernetes.io/component"
_SERVING = {"server", "mlflow", "postgresql"}


def troubles(api: Api, namespace: str) -> Iterator[str]:
    """One for each pod that is not ready, and for each that cannot be made; none where there is no release."""
    pods = api.list(path_to("Pod", namespace), labelSelector=_OF_THE_CHART)
    warnings = newest_warnings(api.list(path_to("Event", namespace), fieldSelector="type=Warning")) if pods else {}
    for pod in pods:
        if pod["metadata"]["labels"].get(_COMPONENT) in _SERVING and (why := why_not_ready(pod, warnings)):
            yield f"{pod['metadata']['name']}: {why}"
    for deployment in api.list(path_to("Deployment", namespace), labelSelector=_OF_THE_CHART):
        if told := why_not_made(deployment):
            yield f"{deployment['metadata']['name']}: its pod cannot be made: {told}"
