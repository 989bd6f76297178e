"""From a job spec on this machine to what is sent: the resolved spec, the code, and where both come from."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from epochal.catalog.index import check
from epochal.client.plain import plain
from epochal.engine.code import Package, pack_of
from epochal.errors import SpecError, UsageError
from epochal.settings import Home
from epochal.spec.load import LoadedSpec, load_spec, load_text
from epochal.sweeps.check import check as check_sweep
from epochal.tracking.git import git_state
from epochal.tracking.software import describe_software, without_values

Source = str | os.PathLike[str] | Mapping[str, Any] | BaseModel | LoadedSpec
"""A job spec: its file (``-`` is standard input), the mapping that such a file holds, a model or dataclass of the same
shape, or one that was loaded."""

MAX_DIFF_BYTES = 256 * 1024


@dataclass(frozen=True)
class Submission:
    """All that the server is told of a job; the same for every try at telling it.

    ``spec`` has every default filled in. Sent is what was ``written``: the server fills in the rest, and can tell what
    was asked for from what was not. ``folder`` is where relative paths start. ``package`` is the code, where the spec
    ships any.
    """

    spec: Mapping[str, Any]
    written: Mapping[str, Any]
    folder: str
    file: str
    command: tuple[str, ...] = ()
    package: Package | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    git_diff: str = ""

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """About the code: what was not packed because it looks like a secret, which modules have others' names."""
        return self.package.warnings if self.package else ()

    def document(self, key: str) -> dict[str, Any]:
        """The body of ``POST /jobs``."""
        return {
            "spec": dict(self.written),
            "key": key,
            "code": self.package.digest if self.package else None,
            "command": list(self.command),
            "file": self.file,
            "folder": self.folder,
            "tags": dict(self.tags),
            "environment": dict(self.environment),
            "git_diff": self.git_diff,
        }


class _Dumper(yaml.SafeDumper):
    """Text in quotes, whatever it looks like: ``1e-3`` is a number to our parser and text to PyYAML."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def load(source: Source, overrides: str | Sequence[str] = ()) -> LoadedSpec:
    """A spec, checked against the catalog too; ``overrides`` as ``path=value``.

    Raises:
        SpecError: with every problem.
        UsageError: it is nothing that could be a spec.
    """
    changes = [overrides] if isinstance(overrides, str) else overrides
    if isinstance(source, LoadedSpec):
        return source
    if isinstance(source, str | os.PathLike):
        return load_spec(os.fspath(source), changes, [check, check_sweep])
    written = plain(source, "spec")
    if not isinstance(written, dict):
        said = f"a spec is a file or a mapping, and not {type(source).__name__}"
        raise UsageError(said, "such as client.submit('job.yaml')")
    text = yaml.dump(written, Dumper=_Dumper, sort_keys=False)
    try:
        return load_text(text, Path.cwd() / "spec", changes, [check, check_sweep], shown="spec")
    except SpecError as error:  # its lines are those of a text that the user has never seen
        raise SpecError(error.source, error.unplaced()) from None


def prepare(loaded: LoadedSpec, home: Home, command: Sequence[str] | None = None) -> Submission:
    """Pack the code and write down what it is submitted with. ``command``: the command line, default this process's.

    Raises:
        CodeError: the code cannot be packed (too large, a link that leaves the folder).
    """
    typed = without_values(sys.argv if command is None else command)
    package = pack_of(loaded, home.packages)
    state = git_state(loaded.code_folder)
    tags = {"epochal.code_digest": package.digest} if package else {}
    environment = describe_software(typed)
    if state:
        tags |= state.tags
        environment["git"] = state.described
    return Submission(
        spec=loaded.spec.model_dump(mode="json"),
        written=loaded.spec.model_dump(mode="json", exclude_unset=True),
        folder=str(loaded.folder),
        file=loaded.source,
        command=typed,
        package=package,
        tags=tags,
        environment=environment,
        git_diff=_cut(state.diff) if state else "",
    )


def _cut(diff: str) -> str:
    """At most ``MAX_DIFF_BYTES`` of it, in whole lines."""
    raw = diff.encode()
    if len(raw) <= MAX_DIFF_BYTES:
        return diff
    return re.sub(r"[^\n]*\Z", "", raw[:MAX_DIFF_BYTES].decode(errors="ignore"))
