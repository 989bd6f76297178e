"""Jobs, attempts and events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_jobs()
    _create_attempts()
    _create_events()


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("key", sa.Text),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("spec_digest", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("submitted_by", sa.Text, nullable=False),
        sa.Column("origin", sa.JSON, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("wanted", sa.Text),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("expires_at", sa.Double),
        sa.Column("run_id", sa.Text),
        sa.Column("tracking_uri", sa.Text),
        sa.Column("progress", sa.JSON),
        sa.Column("submitted_at", sa.Double, nullable=False),
        sa.Column("entered_at", sa.Double, nullable=False),
        sa.Column("first_started_at", sa.Double),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("waited_seconds", sa.Double, nullable=False),
        sa.Column("ran_seconds", sa.Double, nullable=False),
        sa.UniqueConstraint("id", name="jobs_id"),
        sa.UniqueConstraint("key", name="jobs_key"),
    )
    op.create_index("jobs_queue", "jobs", ["state", "priority", "number"])
    op.create_index("jobs_name", "jobs", ["name", "number"])
    op.create_index("jobs_spec_digest", "jobs", ["spec_digest"])


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", name="attempts_job"), primary_key=True),
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("leased_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("outcome", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("world_size", sa.Integer),
        sa.Column("detail", sa.JSON, nullable=False),
    )
    live = sa.text("ended_at IS NULL")
    op.create_index("attempts_one_live", "attempts", ["job_id"], unique=True, sqlite_where=live, postgresql_where=live)


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", name="events_job"), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("previous", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("events_job_id", "events", ["job_id", "id"])
