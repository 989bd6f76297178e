"""Losses in a row, the newest checkpoint and its storage, and keys of what may be told twice."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """All of it empty: what older versions did not write down is not known."""
    op.add_column("jobs", sa.Column("losses", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("storage", sa.Text))
    op.add_column("attempts", sa.Column("checkpoint_step", sa.BigInteger))
    op.add_column("attempts", sa.Column("checkpoint_path", sa.Text))
    op.add_column("attempts", sa.Column("checkpoint_at", sa.Double))
    op.add_column("attempts", sa.Column("storage", sa.Text))
    op.add_column("attempts", sa.Column("request", sa.Text))
    op.create_index("attempts_request", "attempts", ["agent", "request"])
    op.add_column("events", sa.Column("key", sa.Text))
    keyed = sa.text('"key" IS NOT NULL')
    op.create_index("events_key", "events", ["job_id", "key"], unique=True, sqlite_where=keyed, postgresql_where=keyed)
    op.add_column("agents", sa.Column("storage", sa.Text))
