"""Each attempt's secret, in the place of its request's id; keys of submissions are their submitter's own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Attempts that were leased before have no secret, so that no server takes what is told of them: they end."""
    op.drop_index("attempts_request", "attempts")
    op.execute("ALTER TABLE attempts RENAME COLUMN request TO secret")
    op.execute("UPDATE attempts SET secret = NULL")
    op.create_index("attempts_secret", "attempts", ["agent", "secret"])
    jobs = sa.table("jobs", sa.column("key", sa.Text), sa.column("submitted_by", sa.Text))
    op.execute(sa.update(jobs).where(jobs.c.key.is_not(None)).values(key=jobs.c.submitted_by + "/" + jobs.c.key))
