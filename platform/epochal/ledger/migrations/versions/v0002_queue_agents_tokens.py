"""What the queue policy reads of a job, agents, tokens and quotas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

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
        values = _told(_mapping(row.spec), _mapping(row.origin))
        connection.execute(sa.update(jobs).where(jobs.c.number == row.number).values(values))


def _columns() -> list[Any]:
    return [sa.column(column.name, column.type) for column in _NEW_COLUMNS]


def _mapping(document: Any) -> Mapping[str, Any]:
    return document if isinstance(document, Mapping) else {}


def _told(spec: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, Any]:
    """The new columns from a stored spec and origin, as Epochal read them when it wrote version 0002."""
    resources, limits = _mapping(spec.get("resources")), _mapping(spec.get("limits"))
    workers, queue, code = resources.get("workers"), spec.get("queue"), origin.get("code")
    span = workers if isinstance(workers, Mapping) else {"min": workers, "max": workers}
    least = int(_number(span.get("min"))) or 1
    return {
        "queue": queue if isinstance(queue, str) and queue else "default",
        "preemptible": spec.get("preemptible") is True,
        "workers_min": least,
        "workers_max": max(least, int(_number(span.get("max")))),
        "cpus": _number(resources.get("cpus_per_worker")) or 1.0,
        "gpus": _number(resources.get("gpus_per_worker")),
        "memory": _bytes(resources.get("memory_per_worker")),
        "max_pending": _seconds(limits.get("max_pending")),
        "code_digest": code if isinstance(code, str) else None,
    }


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0} | {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip


def _number(value: Any) -> float:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100_000
    return float(value) if usable else 0.0


def _bytes(value: Any) -> int | None:
    if isinstance(value, str):
        found = re.fullmatch(r"(\d{1,19}(?:\.\d{1,9})?)\s?([KMGT]i?B|B)", value)
        value = int(float(found[1]) * _UNITS[found[2]]) if found else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 2**60 else None


def _seconds(value: Any) -> float | None:
    part = r"(\d{1,19}(?:\.\d{1,9})?)(ms|s|m|h|d)"
    if not isinstance(value, str) or not re.fullmatch(rf"(?:{part}){{1,5}}", value):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(part, value))


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
