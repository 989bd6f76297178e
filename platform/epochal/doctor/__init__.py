"""`epochal doctor`: checks of a machine, an installation and a ledger, and what to do."""
