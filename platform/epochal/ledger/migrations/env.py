"""Alembic's entry point: it runs the migrations on the connection it is given (``schema.upgrade``)."""

from alembic import context

from epochal.ledger.migrations import VERSION_TABLE
from epochal.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
