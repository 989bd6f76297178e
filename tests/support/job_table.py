"""What the files in ``jobs/`` say that they reach, in a line ``# Expected: val/accuracy above 0.95.``"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from pathlib import Path

JOBS = Path(__file__).parents[2] / "jobs"
TABLE = Path(__file__).parents[2] / "platform" / "docs" / "jobs.md"
_LINE = re.compile(r"^# Expected: (\S+) (above|below) (\d+(?:\.\d+)?)\b", re.MULTILINE)
_MEETS = {"above": operator.gt, "below": operator.lt}


@dataclass(frozen=True)
class Expected:
    metric: str
    sign: str
    bound: float

    def met(self, value: float) -> bool:
        return bool(_MEETS[self.sign](value, self.bound))

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.bound:g}"


def files() -> list[Path]:
    """Those that train one model."""
    return sorted(JOBS.glob("*.yaml"))


def expected(file: Path) -> Expected | None:
    found = _LINE.search(file.read_text(encoding="utf-8"))
    return Expected(found[1], found[2], float(found[3])) if found else None
