"""Placement groups left on a cluster whose driver is gone.

Ray removes them itself once it has noticed the driver's end, which a head that was cut off meanwhile may not have.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.core.generated import gcs_pb2
from ray.util.placement_group import PlacementGroup, remove_placement_group

from epochal.engine.place import GROUP_PREFIX

_Table: Any = gcs_pb2.PlacementGroupTableData  # type: ignore[attr-defined]


def reap() -> list[str]:
    """Remove the groups of dead drivers that gangs were placed in; their names."""
    state: Any = ray._private.state.state
    # From the GCS's own tables: the public one does not say which driver a group belongs to.
    accessor = state._connect_and_get_accessor()
    found = [_Table.FromString(row) for row in accessor.get_placement_group_table()]
    dead = _dead_drivers(accessor)
    orphans = [group for group in found if _is_orphan(group, dead)]
    for group in orphans:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
    return [group.name for group in orphans]


def _is_orphan(group: Any, dead: set[bytes]) -> bool:
    ours = group.name.startswith(GROUP_PREFIX) and group.state != _Table.REMOVED
    return ours and (group.creator_job_dead or group.creator_job_id in dead)


def _dead_drivers(accessor: Any) -> set[bytes]:
    rows = (gcs_pb2.JobTableData.FromString(row) for row in accessor.get_job_table())  # type: ignore[attr-defined]
    return {row.job_id for row in rows if row.is_dead}
