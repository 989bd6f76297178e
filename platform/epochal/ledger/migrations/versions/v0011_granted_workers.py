"""How many workers a job may have that an agent has, and since when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("granted", sa.Integer))
    op.add_column("jobs", sa.Column("granted_at", sa.Double))
