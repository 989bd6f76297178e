"""The part of ``sync`` that logs a batch of metrics, parameters and tags, all of it but what MLflow refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from epochal.tracking.connection import is_refused
from epochal.tracking.obstacle import described, status_of


def log_batch(
    client: Any, run_id: str, batch: Mapping[str, Sequence[Any]], check_not_deleted: Callable[[], None]
) -> Iterator[tuple[str, str]]:
    """One request; where MLflow refuses that, what is in it by halves. Yields what it will never take, and why.

    Args:
        batch: entities of MLflow by ``metrics``, ``params`` or ``tags``: at most 1,000 together, 100 of the last two.
        check_not_deleted: raises where the run is deleted, which MLflow calls a refusal too.
    """
    if not (count := sum(map(len, batch.values()))):
        return
    try:
        client.log_batch(run_id, **batch, synchronous=True)
        return
    except Exception as error:
        is_too_large = status_of(error) == "413"
        if not is_refused(error) and not is_too_large:
            raise
        check_not_deleted()
        if count == 1:
            if is_too_large or "must be in the 'active' state" in described(error):  # restored a moment ago
                raise
            ((kind, (entity,)),) = ((kind, entities) for kind, entities in batch.items() if entities)
            yield f"{kind[:-1]} {entity.key}", described(error)[:200]
            return
    for part in _halves(batch):
        yield from log_batch(client, run_id, part, check_not_deleted)


def _halves(batch: Mapping[str, Sequence[Any]]) -> Iterator[Mapping[str, Sequence[Any]]]:
    """Each kind by itself; one that is alone in two halves."""
    kinds = {kind: entities for kind, entities in batch.items() if entities}
    if len(kinds) > 1:
        yield from ({kind: entities} for kind, entities in kinds.items())
        return
    ((kind, entities),) = kinds.items()
    middle = len(entities) // 2
    yield from ({kind: entities[:middle]}, {kind: entities[middle:]})
