"""The worker groups of an agent's cluster: what it has, and could have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agents", sa.Column("groups", sa.JSON, nullable=False, server_default="[]"))
