"""What one look at this machine found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    """It works, but less well than it could, or something waits to be done."""
    FAIL = "fail"
    """A job would fail here."""


@dataclass(frozen=True)
class Check:
    """One thing looked at: ``found`` is what is there, ``advice`` what to do about it."""

    name: str
    status: Status
    found: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def ok(name: str, found: str, advice: str = "") -> Check:
    return Check(name, Status.OK, found, advice)


def warn(name: str, found: str, advice: str) -> Check:
    return Check(name, Status.WARN, found, advice)


def fail(name: str, found: str, advice: str) -> Check:
    return Check(name, Status.FAIL, found, advice)


def graded(name: str, value: float, limits: tuple[float, float], found: str, advice: str) -> Check:
    """FAIL below the first of ``limits``, WARN below the second."""
    if value >= limits[1]:
        return ok(name, found)
    return (fail if value < limits[0] else warn)(name, found, advice)
