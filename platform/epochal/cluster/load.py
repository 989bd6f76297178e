"""A cluster spec's file to a ``ClusterSpec``, or every problem in it at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath

from epochal.cluster.spec import ClusterSpec
from epochal.errors import Problem, SpecError
from epochal.spec.load import Kind, load_kind
from epochal.spec.tree import Path, overlaps


def load_cluster_spec(source: str | FilePath, overrides: Sequence[str] = ()) -> ClusterSpec:
    """Read the cluster spec in the file ``source`` (``-`` is standard input), with ``path=value`` overrides.

    Raises:
        SpecError: with every problem, in the order of the file.
    """
    try:
        return load_kind(CLUSTER, source, overrides)
    except SpecError as error:
        error.hint = "`epochal cluster render FILE` checks it again, and prints what it makes"
        raise


def broken(spec: ClusterSpec, wrong: Sequence[Path] = ()) -> list[Problem]:
    """What no field of the spec can say alone."""
    found = [*_pinned(spec), *_groups(spec)]
    return [problem for problem in found if not any(overlaps(_path(problem), path) for path in wrong)]


def _path(problem: Problem) -> Path:
    return tuple(int(step) if step.isdigit() else step for step in problem.path.split("."))


def _pinned(spec: ClusterSpec) -> Iterator[Problem]:
    """Nodes that start an hour later must get the same code."""
    name = spec.image.name.rpartition("/")[2]
    tag = name.partition("@")[0].partition(":")[2]
    if "@" not in name and tag in ("", "latest"):
        message = f"expected an image with a tag or digest of its own, got {spec.image.name!r}"
        yield Problem("image.name", message, hint="write the version behind a colon: epochal:0.1.0")


def _groups(spec: ClusterSpec) -> Iterator[Problem]:
    names = Counter(group.name for group in spec.groups)
    for index, group in enumerate(spec.groups):
        at = f"groups.{index}"
        if names[group.name] > 1:
            yield Problem(f"{at}.name", f"expected names of their own, got {names[group.name]} groups {group.name!r}")
        if group.min > group.max:
            yield Problem(f"{at}.max", f"expected at least min ({group.min}), got {group.max}")
        if group.shared_memory >= group.memory:
            message = f"expected less than memory ({group.memory}), which it counts as, got {group.shared_memory}"
            yield Problem(f"{at}.shared_memory", message)
        for name, field in {"cpu": "cpus", "memory": "memory", group.gpu_resource: "gpus"}.items():
            if name in group.resources:
                told = f"expected what no other field says, and {field} says how much of this Ray may give to jobs"
                yield Problem(f"{at}.resources.{name}", told, hint=f"set {field}")
        for number, toleration in enumerate(group.tolerations):
            where = f"{at}.tolerations.{number}"
            if toleration.operator == "Exists" and toleration.value is not None:
                yield Problem(f"{where}.value", "expected none for Exists", hint="write `operator: Equal`")
            if toleration.operator == "Equal" and (toleration.key is None or toleration.value is None):
                yield Problem(where, "expected a key and a value for Equal")


CLUSTER = Kind(
    ClusterSpec,
    broken,
    {
        "version": 1,
        "name": "stand-in",
        "image": {"name": "stand-in:1"},
        "server": {"url": "http://stand-in", "token": {"secret": "stand-in", "key": "token"}},
        "tracking": {"url": "http://stand-in"},
        "storage": {"claim": "stand-in"},
        "groups": [{"name": "stand-in", "cpus": 1.0}],
    },
)
