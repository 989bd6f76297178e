"""The ledger's tables. A change here needs a migration (``migrations/versions``) and a new ``HEAD`` there."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Computed,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

metadata = MetaData()
# SQLite numbers rows by itself only in a column declared INTEGER PRIMARY KEY.
_Number = BigInteger().with_variant(Integer(), "sqlite")

# The kind is not in it: a sweep starts where a training of the same numbers does, for its step is its least.
_QUEUE_CLASS = " || ' ' || ".join(
    (
        *(f"CAST({name} AS TEXT)" for name in ("priority", "workers_min", "workers_max", "cpus", "gpus")),
        "COALESCE(CAST(memory AS TEXT), '')",
        # Names may hold spaces: with their lengths before them, no two classes are written alike.
        *(f"CAST(LENGTH({name}) AS TEXT) || ' ' || {name}" for name in ("submitted_by", "queue")),
        "COALESCE(storage, '')",
    )
)


class _QueueClass(Computed):
    """Of its own, or the rule below would hold for all tables of the process, MLflow's too."""


@compiles(_QueueClass, "sqlite")
def _computed_when_read(element: _QueueClass, compiler: Any, **options: Any) -> str:
    """SQLite can add no stored column to a table, and indexes these too; PostgreSQL indexes only stored ones."""
    return f"GENERATED ALWAYS AS ({element.sqltext})"


jobs = Table(
    "jobs",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("key", Text),
    Column("spec_digest", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("submitted_by", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("message", Text, nullable=False),
    Column("wanted", Text),
    Column("epoch", Integer, nullable=False),
    Column("owner", Text),
    Column("expires_at", Double),
    Column("run_id", Text),
    Column("tracking_uri", Text),
    Column("progress", JSON(none_as_null=True)),
    Column("submitted_at", Double, nullable=False),
    Column("entered_at", Double, nullable=False),
    Column("first_started_at", Double),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("updated_at", Double, nullable=False),
    Column("waited_seconds", Double, nullable=False),
    Column("ran_seconds", Double, nullable=False),
    # What the queue policy reads of a job, without its spec.
    Column("queue", Text, nullable=False, server_default="default"),
    Column("preemptible", Boolean, nullable=False, server_default=false()),
    Column("workers_min", Integer, nullable=False, server_default="1"),
    Column("workers_max", Integer, nullable=False, server_default="1"),
    Column("cpus", Double, nullable=False, server_default="1"),
    Column("gpus", Double, nullable=False, server_default="0"),
    Column("memory", BigInteger),
    Column("max_pending", Double),
    Column("code_digest", Text),
    Column("losses", Integer, nullable=False, server_default="0"),
    Column("storage", Text),
    Column("experiment_id", Text),
    # What the queue policy asks of a job: of the queued jobs of a class, it looks at the first.
    Column("queue_class", Text, _QueueClass(_QUEUE_CLASS, persisted=True)),
    Column("grace", Double),
    Column("kind", Text, nullable=False, server_default="train"),
    # Of a sweep: the newest of what its users asked, so that a renewal tells it without another question.
    Column("requested", Integer, nullable=False, server_default="0"),
    # While an agent has it: how many workers the policy lets it have, and since when.
    Column("granted", Integer),
    Column("granted_at", Double),
    UniqueConstraint("id", name="jobs_id"),
    UniqueConstraint("key", name="jobs_key"),
    Index("jobs_queue", "state", "priority", "number"),
    Index("jobs_queue_class", "state", "queue_class", "number"),
    Index("jobs_recent", "state", "number"),
    Index("jobs_name", "name", "number"),
    Index("jobs_spec_digest", "spec_digest"),
)

documents = Table(
    "documents",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", name="documents_job"), primary_key=True),
    Column("spec", JSON, nullable=False),
    Column("origin", JSON, nullable=False),
    Column("data", JSON(none_as_null=True)),
)
"""What of a job is big and hardly changes, apart from its row, which every renewal of a lease writes again."""

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", name="attempts_job"), primary_key=True),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("agent", Text, nullable=False),
    Column("leased_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("outcome", Text),
    Column("reason", Text),
    Column("message", Text, nullable=False),
    Column("world_size", Integer),
    Column("detail", JSON, nullable=False),
    Column("checkpoint_step", BigInteger),
    Column("checkpoint_path", Text),
    Column("checkpoint_at", Double),
    Column("storage", Text),
    # SHA-256 of what its holder has to show.
    Column("secret", Text),
    Index("attempts_secret", "agent", "secret"),
)
_live = attempts.c.ended_at.is_(None)
# The database itself refuses a second live attempt of a job.
Index("attempts_one_live", attempts.c.job_id, unique=True, sqlite_where=_live, postgresql_where=_live)

events = Table(
    "events",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("job_id", Text, ForeignKey("jobs.id", name="events_job"), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("at", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("previous", Text),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("message", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("key", Text),
    Index("events_job_id", "job_id", "id"),
    sqlite_autoincrement=True,
)
_keyed = events.c.key.is_not(None)
Index("events_key", events.c.job_id, events.c.key, unique=True, sqlite_where=_keyed, postgresql_where=_keyed)

trials = Table(
    "trials",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", name="trials_job"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("point", JSON, nullable=False),
    Column("state", Text, nullable=False),
    Column("length", Double, nullable=False),
    Column("until", Double, nullable=False),
    # JSON, as SQLite makes NULL of a NaN.
    Column("value", JSON(none_as_null=True)),
    Column("metrics", JSON, nullable=False),
    Column("curve", JSON, nullable=False),
    Column("run_id", Text),
    Column("reason", Text),
    Column("message", Text, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("updated_at", Double, nullable=False),
)

inputs = Table(
    "inputs",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", name="inputs_job"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("key", Text),
    Column("body", JSON, nullable=False),
    UniqueConstraint("job_id", "key", name="inputs_key"),
)
"""What the controller of a sweep was told, in its order: only appended to, by whoever holds the lease."""

requests = Table(
    "requests",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id", name="requests_job"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("key", Text, nullable=False),
    Column("body", JSON, nullable=False),
    Column("at", Double, nullable=False),
    Column("by", Text, nullable=False),
    UniqueConstraint("job_id", "key", name="requests_key"),
)
"""What users ask of a sweep: its agent makes inputs of them, which have their keys."""

agents = Table(
    "agents",
    metadata,
    Column("name", Text, primary_key=True),
    Column("incarnation", Text, nullable=False),
    Column("replaced", JSON, nullable=False),
    Column("nodes", JSON, nullable=False),
    Column("held", JSON, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("storage", Text),
    Column("groups", JSON, nullable=False, server_default="[]"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    UniqueConstraint("digest", name="tokens_digest"),
)

quotas = Table(
    "quotas",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("jobs", Integer),
    Column("cpus", Double),
    Column("gpus", Double),
)


class now(FunctionElement[float]):  # noqa: N801 - reads as the SQL function that it is
    """Seconds since 1970 by the database's clock, the same for the whole statement."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _sqlite_now(element: now, compiler: Any, **options: Any) -> str:
    # unixepoch('subsec') came with SQLite 3.42; Debian 12 has 3.40.
    return "round((julianday('now') - 2440587.5) * 86400.0, 3)"


@compiles(now, "postgresql")
def _postgresql_now(element: now, compiler: Any, **options: Any) -> str:
    return "CAST(extract(epoch FROM statement_timestamp()) AS double precision)"
