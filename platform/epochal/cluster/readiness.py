"""Waits until a cluster runs, and says what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable

from epochal.cluster.api import Api
from epochal.cluster.status import ClusterStatus, read, status_of
from epochal.errors import CapacityError, UnreachableError

_EVERY_SECONDS = 1.0


def wait_until_ready(
    api: Api,
    namespace: str,
    name: str,
    timeout: float,
    tell: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> ClusterStatus:
    """The cluster once every pod that is asked for is ready. ``tell`` gets what it waits for, as that changes.

    Raises:
        CapacityError: it is not, after ``timeout`` seconds.
        UnreachableError: the API server did not answer at the end.
    """
    until = time.monotonic() + timeout
    told: tuple[str, ...] = ()
    waits: tuple[str, ...]
    while True:
        left = until - time.monotonic()
        try:
            status = status_of(read(api, namespace, name))
        except UnreachableError as error:  # it may be restarted in between
            if left <= 0:
                raise
            waits = (f"the API server: {error}",)
        else:
            if status.is_ready:
                return status
            waits = status.waits
            if left <= 0:
                message = f"the cluster {name} is not ready after {timeout:g} s: {'; '.join(waits)}"
                raise CapacityError(message, f"`epochal cluster status {name} -n {namespace}` shows how it goes on")
        for text in waits:
            if text not in told:
                tell(f"waiting for {text}")
        told = waits
        sleep(min(_EVERY_SECONDS, max(0.0, left)))
