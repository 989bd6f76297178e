"""What the supervisor is to run, as it is handed over in a file: values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter


@dataclass(frozen=True)
class Probe:
    """How to see that a service is healthy: ``url`` answers 200.

    Where ``agent`` is given, the answer has to list that agent as alive, and as the service's own process.
    ``token_file`` holds the bearer token to ask with.
    """

    url: str
    token_file: str | None = None
    agent: str | None = None


@dataclass(frozen=True)
class ServicePlan:
    """One service. ``environment`` is added to the supervisor's own, and is no place for secrets."""

    name: str
    command: tuple[str, ...]
    probe: Probe
    url: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Services without which this one's probe says nothing about it."""
    stop_seconds: float = 10.0
    """How long it may take to end by itself once it is told to."""


@dataclass(frozen=True)
class Plan:
    """All services, in the order in which they are shown; they are ended in the opposite one.

    ``folder`` holds their logs, the state file and the lock. ``options`` is what `epochal up` was asked for.
    """

    folder: Path
    services: tuple[ServicePlan, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return TypeAdapter(Plan).dump_json(self, indent=2).decode()

    @staticmethod
    def from_json(text: str) -> Plan:
        return TypeAdapter(Plan).validate_json(text)
