"""The server from Python: ``Client`` for people and notebooks, ``RemoteLedger`` for agents.

Needs none of the cluster's packages.
"""

from epochal.client.client import Client

__all__ = ["Client"]
