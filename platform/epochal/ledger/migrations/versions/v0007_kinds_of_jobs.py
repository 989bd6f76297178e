"""What the queue policy asks of a job, in one column, so that the first job of each kind is found by an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_KIND = " || ' ' || ".join(
    (
        *(f"CAST({name} AS TEXT)" for name in ("priority", "workers_min", "workers_max", "cpus", "gpus")),
        "COALESCE(CAST(memory AS TEXT), '')",
        *(f"CAST(LENGTH({name}) AS TEXT) || ' ' || {name}" for name in ("submitted_by", "queue")),
        "COALESCE(storage, '')",
    )
)


def upgrade() -> None:
    stored = op.get_bind().dialect.name == "postgresql" or None  # SQLite can add only one that is not
    op.add_column("jobs", sa.Column("kind", sa.Text, sa.Computed(_KIND, persisted=stored)))
    op.drop_index("jobs_alike", "jobs")
    op.create_index("jobs_kind", "jobs", ["state", "kind", "number"])
