"""What of the chart is written from something else: `python tests/support/chart_files.py --write`.

The schema of `cluster` in the values is that of cluster specs; README.md lists the values with their comments.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from epochal.cluster.spec import ClusterSpec

CHART = Path(__file__).parents[2] / "helm" / "epochal"
SCHEMA, README = CHART / "values.schema.json", CHART / "README.md"
_OURS = ("head", "agent", "secrets", "groups")
"""What of a cluster spec a user of the chart says; the rest the chart knows."""


def schema() -> str:
    known = json.loads(SCHEMA.read_text(encoding="utf-8"))
    spec = ClusterSpec.model_json_schema()
    known["properties"]["cluster"]["properties"] |= {name: spec["properties"][name] for name in _OURS}
    used: dict[str, Any] = {}
    while missing := set(re.findall(r'"#/\$defs/(\w+)"', json.dumps([known["properties"], used]))) - used.keys():
        used |= {name: spec["$defs"][name] for name in missing}
    known["$defs"] = dict(sorted(used.items()))
    return json.dumps(known, indent=2, ensure_ascii=False) + "\n"


def readme() -> str:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    rows = [f"| `{path}` | `{_shown(default)}` | {comment} |" for path, default, comment in values(text)]
    return _HEAD + "\n".join(["| value | default | |", "|---|---|---|", *rows]) + "\n"


def values(text: str) -> Iterator[tuple[str, Any, str]]:
    """Each value of the file with its path, its default and the comment before it."""
    defaults, comment, path = yaml.safe_load(text), "", []
    for line in text.splitlines():
        if found := re.match(r" *# (-- )?(.*)", line):
            comment = found[2] if found[1] else f"{comment} {found[2]}" if comment else ""
        elif found := re.match(r"( *)(\w+):", line):
            path = [*path[: len(found[1]) // 2], found[2]]
            default: Any = defaults
            for name in path:
                default = default[name]
            # A section with a comment of its own has a row, and its parts have theirs.
            if comment or not re.match(r" *\w+:$", line):
                yield ".".join(path), default if not re.match(r" *\w+:$", line) else None, comment
            comment = ""


def _shown(default: Any) -> str:
    return "" if default is None else json.dumps(default, ensure_ascii=False)


_HEAD = """\
# The chart

Installs the server, MLflow, PostgreSQL, an agent and its Ray cluster. How to install, upgrade and back up is in
[Use Kubernetes](../../platform/docs/how-to/use-kubernetes.md); `ci/` has values for a laptop, for production and for a
cluster without the internet. This page is written from the comments of `values.yaml` by `make docs`.

"""


if __name__ == "__main__":
    written = {SCHEMA: schema(), README: readme()}
    if "--write" in sys.argv:
        for path, text in written.items():
            path.write_text(text, encoding="utf-8")
    sys.exit(any(path.read_text(encoding="utf-8") != text for path, text in written.items()))
