"""Versions of the ledger's tables.

To change a table: change ``ledger/tables.py``, add ``versions/vNNNN_what.py`` whose ``down_revision`` is ``HEAD``, and
set ``HEAD`` to its ``revision``. Tests hold the two ways to today's tables (created at once, or upgraded from the first
version) to the same result. A version imports nothing of Epochal: it says what was so when it was written, and what
changes later must not change it.
"""

from __future__ import annotations

HEAD = "0012"
"""The newest revision. A constant, so that opening an up-to-date ledger needs no alembic (0.1 s)."""

VERSION_TABLE = "epochal_alembic_version"
"""Our own name: the same database may be MLflow's too, or anyone's."""
