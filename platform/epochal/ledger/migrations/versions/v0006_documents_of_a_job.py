"""Spec and origin have a table of their own; indexes for the queue policy and for the newest jobs of a state."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ALIKE = ("priority", "submitted_by", "queue", "workers_min", "workers_max", "cpus", "gpus", "memory", "storage")


def upgrade() -> None:
    op.create_table(
        "documents",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", name="documents_job"), primary_key=True),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("origin", sa.JSON, nullable=False),
    )
    op.execute("INSERT INTO documents (job_id, spec, origin) SELECT id, spec, origin FROM jobs")
    op.drop_column("jobs", "spec")
    op.drop_column("jobs", "origin")
    op.create_index("jobs_recent", "jobs", ["state", "number"])
    op.create_index("jobs_alike", "jobs", ["state", *_ALIKE, "number"])
