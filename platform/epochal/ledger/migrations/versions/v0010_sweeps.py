"""Sweeps: kinds of jobs, trials, what a sweep's controller was told, and what users ask of it."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("jobs_kind", "jobs")
    op.execute("ALTER TABLE jobs RENAME COLUMN kind TO queue_class")
    op.create_index("jobs_queue_class", "jobs", ["state", "queue_class", "number"])
    op.add_column("jobs", sa.Column("kind", sa.Text, nullable=False, server_default="train"))
    op.add_column("jobs", sa.Column("requested", sa.Integer, nullable=False, server_default="0"))
    _fill_in()
    _create_trials()
    _create_inputs()
    _create_requests()


def _fill_in() -> None:
    """Which of the jobs that are there are sweeps."""
    jobs = sa.table("jobs", sa.column("id"), sa.column("kind"))
    documents = sa.table("documents", sa.column("job_id"), sa.column("spec", sa.JSON))
    connection = op.get_bind()
    found = connection.execute(sa.select(documents.c.job_id, documents.c.spec))
    sweeps = [row.job_id for row in found if isinstance(row.spec, Mapping) and isinstance(row.spec.get("sweep"), dict)]
    for job_id in sweeps:
        connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(kind="sweep"))


def _create_trials() -> None:
    op.create_table(
        "trials",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", name="trials_job"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("point", sa.JSON, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("length", sa.Double, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.Column("value", sa.JSON),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("curve", sa.JSON, nullable=False),
        sa.Column("run_id", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("updated_at", sa.Double, nullable=False),
    )


def _create_inputs() -> None:
    op.create_table(
        "inputs",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", name="inputs_job"), primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("key", sa.Text),
        sa.Column("body", sa.JSON, nullable=False),
        sa.UniqueConstraint("job_id", "key", name="inputs_key"),
    )


def _create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", name="requests_job"), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.UniqueConstraint("job_id", "key", name="requests_key"),
    )
