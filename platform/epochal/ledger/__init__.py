"""The system of record: jobs, attempts, events, leases, in SQLite or PostgreSQL.

``states`` and ``values`` need no database; import ``epochal.ledger.ledger`` where one is wanted.
"""
