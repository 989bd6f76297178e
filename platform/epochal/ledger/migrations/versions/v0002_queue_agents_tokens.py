"""What the queue policy reads of a job, agents, tokens and quotas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

from epochal.ledger.demands import columns_of

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NEW_COLUMNS: tuple[sa.Column[Any], ...] = (
    sa.Column("queue", sa.Text, nullable=False, server_default="default"),
    sa.Column("preemptible", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("workers_min", sa.Integer, nullable=False, server_default="1"),
    sa.Column("workers_max", sa.Integer, nullable=False, server_default="1"),
    sa.Column("cpus", sa.Double, nullable=False, server_default="1"),
    sa.Column("gpus", sa.Double, nullable=False, server_default="0"),
    sa.Column("memory", sa.BigInteger),
    sa.Column("max_pending", sa.Double),
    sa.Column("code_digest", sa.Text),
)


def upgrade() -> None:
    for column in _NEW_COLUMNS:
        op.add_column("jobs", column)
    _fill_in()
    _create_agents()
    _create_tokens()
    _create_quotas()


def _fill_in() -> None:
    """The new columns of the jobs that are there."""
    jobs = sa.table("jobs", sa.column("number"), sa.column("spec", sa.JSON), sa.column("origin", sa.JSON), *_columns())
    connection = op.get_bind()
    for row in connection.execute(sa.select(jobs.c.number, jobs.c.spec, jobs.c.origin)).all():
        values = columns_of(_mapping(row.spec), _mapping(row.origin))
        connection.execute(sa.update(jobs).where(jobs.c.number == row.number).values(values))


def _columns() -> list[Any]:
    return [sa.column(column.name, column.type) for column in _NEW_COLUMNS]


def _mapping(document: Any) -> Mapping[str, Any]:
    return document if isinstance(document, Mapping) else {}


def _create_agents() -> None:
    op.create_table(
        "agents",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("incarnation", sa.Text, nullable=False),
        sa.Column("replaced", sa.JSON, nullable=False),
        sa.Column("nodes", sa.JSON, nullable=False),
        sa.Column("held", sa.JSON, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
    )


def _create_tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
        sa.UniqueConstraint("digest", name="tokens_digest"),
    )


def _create_quotas() -> None:
    op.create_table(
        "quotas",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("jobs", sa.Integer),
        sa.Column("cpus", sa.Double),
        sa.Column("gpus", sa.Double),
    )
